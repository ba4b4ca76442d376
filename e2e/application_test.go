//go:build unix

package e2e

import (
	"encoding/json"
	"testing"
	"time"
)

// testApplicationHealth takes the application through good and bad health; what
// another sidecar of the world sees is what counts.
func testApplicationHealth(t *testing.T, w world) {
	const name = "health.app"
	other := w.sidecar(t)
	watch := other.open("/registry?service=" + name)
	app := newGreeter(t)
	app.health.Store(503)
	s := w.sidecar(t, "--server_name="+name, "--server_address="+app.addr, "--healthcheck_url="+app.URL+"/health",
		"--healthcheck_interval=20ms", "--healthcheck_timeout=1s")
	s.get("/health").refused(t, 503, "503")
	if other.knows(name) {
		t.Error("registered before a good probe")
	}
	app.health.Store(200)
	took := within(t, patient, "the application to be registered", func() bool { return other.knows(name) })
	t.Logf("registered %v after it was healthy", took.Round(time.Millisecond))
	watch.awaitChange("create", name)
	s.get("/health").is(t, 200, "ok\n")

	app.health.Store(404)
	took = within(t, patient, "the application to be taken out", func() bool { return !other.knows(name) })
	t.Logf("out %v after it was unhealthy", took.Round(time.Millisecond))
	watch.awaitChange("delete", name)
	s.get("/health").refused(t, 404, "404")

	app.health.Store(200)
	within(t, patient, "the application to be put back", func() bool { return other.knows(name) })
	watch.awaitChange("create", name)

	app.Close()
	within(t, patient, "a dead application to be taken out", func() bool { return !other.knows(name) })
	s.get("/health").refused(t, 503, "refused")
}

// testApplicationCrash compares an orderly stop of the sidecar with kill -9.
func testApplicationCrash(t *testing.T, w world) {
	const name = "crash.app"
	const ttl = 2 * time.Second
	other := w.sidecar(t)
	app := newGreeter(t)
	run := func() *sidecar {
		s := w.sidecar(t, "--server_name="+name, "--server_address="+app.addr, "--register_ttl=2", "--register_interval=1")
		within(t, patient, "the application to be registered", func() bool { return other.knows(name) })
		return s
	}
	s := run()
	s.stop()
	if other.knows(name) {
		t.Error("an orderly stop left the application in the registry")
	}
	s = run()
	// It is renewed: longer than its TTL nothing happens.
	for end := time.Now().Add(ttl + ttl/2); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !other.knows(name) {
			t.Fatal("the registration was not renewed")
		}
	}
	s.kill()
	took := within(t, patient, "the registration of a killed sidecar to expire", func() bool { return !other.knows(name) })
	t.Logf("gone %v after kill -9 with a TTL of %v", took.Round(time.Millisecond), ttl)
	if took > ttl+slack {
		t.Errorf("gone %v after kill -9, with a TTL of %v", took, ttl)
	}
	other.post("/rpc", `{"service":"`+name+`","method":"Say.Hello","request":{}}`).refused(t, 404, name)
}

func testAdvertise(t *testing.T, w world) {
	const name = "advertised.app"
	app := newGreeter(t)
	s := w.sidecar(t, "--server_name="+name, "--server_address="+app.addr, "--server_advertise=192.0.2.7:4711",
		"--server_id=me", "--server_version=1.2", "--server_metadata=zone=x,protocol=mucp", "--healthcheck_url="+app.URL+"/health")
	within(t, patient, "the application to be registered", func() bool { return s.knows(name) })
	s.get("/registry?service="+name).is(t, 200, `{"name":"`+name+`","version":"1.2","metadata":{},"endpoints":[],
		"nodes":[{"id":"me","address":"192.0.2.7","port":4711,"metadata":{"zone":"x","protocol":"mucp"}}]}`)
}

// slack is what a busy machine may add to a TTL.
const slack = 8 * time.Second

// testTTL registers over HTTP with a ttl and without.
func testTTL(t *testing.T, w world) {
	const ttl = 2 * time.Second
	a, b := w.sidecar(t), w.sidecar(t)
	app := newGreeter(t)
	watch := b.open("/registry?service=ttl.mortal")
	a.register("", "ttl.lasting", "1", app.addr)
	begun := time.Now()
	a.register("?ttl=2s", "ttl.mortal", "1", app.addr)
	if (!a.knows("ttl.mortal") || !b.knows("ttl.mortal")) && time.Since(begun) < ttl {
		t.Error("a registration is not seen at once")
	}
	watch.awaitChange("create", "ttl.mortal")
	for time.Since(begun) < ttl/2 {
		if !b.knows("ttl.mortal") && time.Since(begun) < ttl {
			t.Fatal("gone too early")
		}
		time.Sleep(20 * time.Millisecond)
	}
	begun = time.Now()
	a.register("?ttl=2s", "ttl.mortal", "1", app.addr) // renews
	for time.Since(begun) < ttl-200*time.Millisecond {
		if known, since := b.knows("ttl.mortal"), time.Since(begun); !known && since < ttl {
			t.Fatalf("gone %v after a renewal for %v", since, ttl)
		}
		time.Sleep(20 * time.Millisecond)
	}
	within(t, patient, "the registration to expire", func() bool { return !b.knows("ttl.mortal") })
	took := time.Since(begun)
	t.Logf("gone %v after a renewal for %v", took.Round(time.Millisecond), ttl)
	if took > ttl+slack {
		t.Errorf("expired after %v, want %v", took, ttl)
	}
	watch.awaitChange("delete", "ttl.mortal")
	a.post("/rpc", `{"service":"ttl.mortal","method":"Say.Hello","request":{}}`).refused(t, 404, "ttl.mortal")
	if !b.knows("ttl.lasting") {
		t.Error("a registration without a ttl did not stay")
	}
}

// Several nodes in one registration, keys in any case, an IPv6 address.
func TestSeveralNodes(t *testing.T) {
	t.Parallel()
	s := newWorld(t, noConsul).sidecar(t)
	s.post("/registry", `{"NAME":"many","version":"1","nodes":[{"id":"a","ADDRESS":"127.0.0.1:1"},
		{"ID":"b","address":"[::1]:2","metadata":{"k":"v"}},{"Id":"c","Address":"::1","Port":3}]}`).is(t, 200, "")
	s.get("/registry?service=many").is(t, 200, `{"name":"many","version":"1","metadata":{},"endpoints":[],"nodes":[
		{"id":"a","address":"127.0.0.1","port":1,"metadata":{}},
		{"id":"b","address":"::1","port":2,"metadata":{"k":"v"}},
		{"id":"c","address":"::1","port":3,"metadata":{}}]}`)
	s.ask("DELETE", "/registry", `{"Name":"many","Nodes":[{"Id":"a"},{"Id":"c"},{"Id":"nosuch"}]}`).is(t, 200, "")
	var left struct{ Nodes []struct{ ID string } }
	if a := s.get("/registry?service=many"); json.Unmarshal([]byte(a.body), &left) != nil || len(left.Nodes) != 1 || left.Nodes[0].ID != "b" {
		t.Errorf("left: %s", a.body)
	}
}
