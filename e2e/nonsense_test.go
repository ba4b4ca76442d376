//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/micro/sidecar/internal/testserver"
)

// TestNonsenseInRegistries has others write nonsense into an engine before a
// sidecar comes and while it is there: it says so in one line, and everything
// works.
func TestNonsenseInRegistries(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (env []string, write func(round int)){
		"consul": nonsenseInConsul, "etcd": nonsenseInEtcd, "nats": nonsenseInNATS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, write := open(t)
			write(0)
			w := newWorld(t, noConsul).with(env...)
			app := newGreeter(t)
			s := w.sidecar(t, "--broker=embedded", "--namespace=sane", "--server_name=sane.app", "--server_address="+app.addr)
			within(t, patient, "the application to be called", func() bool { return s.post("/app/say/hello", john).status == 200 })
			watch := s.open("/registry")
			write(1)
			s.register("", "sane.late", "1", app.addr)
			watch.awaitChange("create", "sane.late")
			s.post("/late/say/hello", john).is(t, 200, helloJohn)
			// Nonsense beside a node that makes sense, and a service of nothing else.
			s.register("", "mixed", "good", app.addr)
			s.rpc("mixed", "Say.Hello", john).is(t, 200, helloJohn)
			if got := s.rpc("bad", "Say.Hello", john); got.status != 404 && got.status != 503 {
				t.Errorf("a service of nonsense: %+v", got)
			}
			var all []struct{ Name string }
			if got := s.get("/registry"); got.status != 200 || json.Unmarshal([]byte(got.body), &all) != nil {
				t.Fatalf("list: %d %.300s", got.status, got.body)
			}
			names := []string{}
			for _, service := range all {
				if service.Name != "bad" { // Consul has it, without a node that can be used
					names = append(names, service.Name)
				}
			}
			if !slices.Equal(names, []string{"mixed", "sane.app", "sane.late"}) {
				t.Errorf("list: %q", names)
			}
			s.get("/readyz").is(t, 200, "ok\n")
			log := s.log.String()
			if n := strings.Count(log, "passed over"); n != 1 || strings.Contains(log, "level=ERROR") {
				t.Errorf("%d lines of log on nonsense, want 1:\n%.2000s", n, log)
			}
		})
	}
}

// badNodes are go-micro's JSON of a service with a node that cannot be.
func badNodes(service, id string) []string {
	node := func(fields string) string {
		return fmt.Sprintf(`{"name":%q,"nodes":[{"id":%q,%s}]}`, service, id, fields)
	}
	return []string{
		"", "{", "null", "[]", `"text"`, `{"name":7}`, strings.Repeat("[", 100_000), `{"name":"` + service + `"}`,
		node(`"address":"127.0.0.1:0"`), node(`"address":"127.0.0.1:70000"`), node(`"address":""`), node(`"address":"a b:1"`),
		node(`"address":"127.0.0.1:1","metadata":"none"`), node(`"address":"unix:relative"`),
	}
}

func nonsenseInEtcd(t *testing.T) ([]string, func(int)) {
	s := testserver.Etcd(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return registryAt("etcd", s.Addr), func(round int) {
		for _, service := range []string{"bad", "mixed"} {
			id := fmt.Sprint("n", round)
			for i, text := range badNodes(service, id) {
				for _, key := range []string{service + "/" + id, fmt.Sprintf("%s/%s/%d", service, id, i), fmt.Sprintf("%s/%s-%d", service, id, i)} {
					if _, err := client.Put(t.Context(), "/micro/registry/"+key, text); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

func nonsenseInNATS(t *testing.T) ([]string, func(int)) {
	s := testserver.NATS(t)
	conn, err := gonats.Connect("nats://" + s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "micro-registry"})
	if err != nil {
		t.Fatal(err)
	}
	return registryAt("nats", s.Addr), func(round int) {
		for _, service := range []string{"bad", "mixed"} {
			for i, text := range append(badNodes(service, "n"),
				fmt.Sprintf(`{"format":1,"name":%q,"node":{"id":"x%d","address":"127.0.0.1","port":70000}}`, service, round)) {
				for _, key := range []string{fmt.Sprintf("%s.x%d", service, round), fmt.Sprintf("%s.n%d.%d", service, round, i), service} {
					if _, err := bucket.PutString(t.Context(), key, text); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

func nonsenseInConsul(t *testing.T) ([]string, func(int)) {
	s := testserver.Consul(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patient}
	return registryAt("consul", s.Addr), func(round int) {
		for _, service := range []string{"bad", "mixed"} {
			for i, fields := range []map[string]any{
				{"Port": 0}, {"Port": 70000}, {"Port": 1, "Address": "a b"}, {"Port": 1, "Address": "http://127.0.0.1"}, {"SocketPath": "relative"},
				{"Port": 0, "Tags": []string{"t", "e", "v", "", "t-", "t-zz", "e-789c", "v=" + strings.Repeat("x", 1<<20), "traefik.enable=true"}},
			} {
				fields["Name"], fields["ID"] = service, fmt.Sprintf("%s/%d %d", service, round, i)
				body, err := json.Marshal(fields)
				if err != nil {
					t.Fatal(err)
				}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.Addr+"/v1/agent/service/register", bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				response, err := client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close() // some of it the agent refuses
			}
		}
	}
}
