//go:build linux

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// clockVar names the file that holds by how many seconds a micro of
// buildClock is wrong.
const clockVar = "MICRO_TEST_CLOCK"

// shift is put into package time: a page that the test shares.
const shift = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var shifted = share()

func share() *atomic.Int64 {
	path, ok := syscall.Getenv("` + clockVar + `")
	if !ok {
		return new(atomic.Int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic(path + ": " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(path + ": " + err.Error())
	}
	return (*atomic.Int64)(unsafe.Pointer(&page[0]))
}

func shift() int64 {
	if shifted == nil { // while packages begin
		return 0
	}
	return shifted.Load()
}
`

// errOtherGo says that another Go was meant.
var errOtherGo = errors.New("package time of this Go is not the one that these tests know how to change")

// buildClock builds a micro whose time of day a test can set, by another
// package time: its monotonic clock, and so its timers, run on as ever. The
// build compiles everything anew, once; the build cache has it from then on.
var buildClock = sync.OnceValues(func() (string, error) {
	dir := os.Getenv(dirVar)
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return "", err
	}
	const call = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n" // in Now
	if strings.Count(string(source), call) != 1 {
		return "", errOtherGo
	}
	changed := strings.Replace(string(source), call, strings.Replace(call, "\n", "\n\tsec += shift()\n", 1), 1)
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": changed, "shift.go": shift} {
		at := filepath.Join(dir, "clock-"+name)
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(folder, name)] = at
	}
	overlay := filepath.Join(dir, "clock.json")
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "micro-clock")
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", path, "../cmd/micro").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build micro with a clock to set: %w\n%s", err, out)
	}
	return path, nil
})

// clock is the time of day of a world.
type clock struct {
	t    *testing.T
	page []byte
}

// withClock gives a world a clock of its own, which is right at first.
func withClock(t *testing.T, w world) (world, *clock) {
	t.Helper()
	if testing.Short() {
		t.Skip("a micro with a clock to set is compiled from the ground up")
	}
	binary, err := buildClock()
	if errors.Is(err, errOtherGo) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(w.home, "clock"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(8); err != nil {
		t.Fatal(err)
	}
	page, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(page) }) // after its processes have ended
	w = w.with(clockVar + "=" + file.Name())
	w.binary = binary
	return w, &clock{t, page}
}

// set makes the clock wrong by so much, at once.
func (c *clock) set(by time.Duration) {
	c.t.Logf("the clock is set: off by %v", by)
	binary.NativeEndian.PutUint64(c.page, uint64(int64(by/time.Second)))
}

// clockJumps are what a clock does: a time server was reached at last, or
// somebody corrects a mistake.
var clockJumps = map[string]time.Duration{"forward": time.Hour, "back": -time.Hour}

// TestClockIsSet sets the clock of a machine while sidecars share the embedded
// engine: nothing ends early, nothing lives on, and what is counted stays true.
func TestClockIsSet(t *testing.T) {
	for way, by := range clockJumps {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			w, clock := withClock(t, newWorld(t, noConsul))
			app := newGreeter(t)
			host := w.sidecar(t, "--namespace=clock", "--enable_stats")
			s := w.sidecar(t, "--namespace=clock", "--enable_stats", "--server_name=clock.app", "--server_address="+app.addr,
				"--healthcheck_url=http://"+app.addr+"/health", "--healthcheck_interval=100ms")
			doomed := w.sidecar(t, append(strings.Fields(ttlFlags), "--server_name=clock.doomed", "--server_address="+app.addr)...)
			host.register("?ttl=20m", "clock.guest", "1", app.addr) // by somebody who renews it now and then
			host.register("?ttl=10s", "clock.short", "1", app.addr)
			host.register("", "clock.forever", "1", app.addr)
			all := []string{"app", "guest", "forever"}
			for _, service := range append(all, "doomed", "short") {
				for _, k := range []*sidecar{host, s} {
					within(t, patient, service+" to be called", func() bool { return k.post("/"+service+"/say/hello", john).status == 200 })
				}
			}
			calls := map[string]*load{}
			for _, service := range all {
				calls[service] = s.load("/"+service+"/say/hello", john, contentType, jsonType)
			}
			changes := s.open("/registry")

			doomed.kill()
			begun := time.Now()
			clock.set(by)
			// What has a time to live ends when that is over, for who was there and
			// for who comes now.
			within(t, 15*time.Second+patient, "what is not renewed to end", func() bool {
				return host.post("/doomed/say/hello", john).status == 404 && s.post("/short/say/hello", john).status == 404
			})
			t.Logf("what is not renewed was gone after %v", time.Since(begun).Round(time.Millisecond))
			late := w.sidecar(t, "--namespace=clock")
			within(t, patient, "who comes now to see the same", func() bool {
				for _, service := range all {
					if late.post("/"+service+"/say/hello", john).status != 200 {
						return false
					}
				}
				return late.post("/doomed/say/hello", john).status == 404 && late.post("/short/say/hello", john).status == 404
			})
			// What is registered now lives as long as it should.
			const life = 8 * time.Second
			begun = time.Now()
			late.register(fmt.Sprint("?ttl=", life), "clock.now", "1", app.addr)
			s.post("/now/say/hello", john).is(t, 200, helloJohn)
			within(t, life+patient, "a new registration to end", func() bool { return s.post("/now/say/hello", john).status == 404 })
			if took := time.Since(begun); took < life-time.Second {
				t.Errorf("a registration of %v ended after %v", life, took)
			}
			// The application's health is looked at as before. It is not to be
			// called while it is taken out.
			calls["app"].clean("calls to app")
			app.health.Store(500)
			within(t, patient, "a sick application to be taken out", func() bool { return !host.knows("clock.app") })
			changes.awaitChange("delete", "clock.app")
			app.health.Store(200)
			within(t, patient, "a well one to be put back", func() bool { return host.knows("clock.app") })
			s.soundStatistics()
			calls["guest"].clean("calls to guest")
			calls["forever"].clean("calls to forever")
			clock.set(0)
			within(t, patient, "all to be there when the clock is right again", func() bool {
				for _, service := range all {
					if s.post("/"+service+"/say/hello", john).status != 200 {
						return false
					}
				}
				return true
			})
		})
	}
}

// soundStatistics requires rates that can be, and the last minutes to be there.
func (s *sidecar) soundStatistics() {
	s.t.Helper()
	var told struct {
		Counters []struct {
			Total int64 `json:"total_reqs"`
		}
		Requests struct{ Rate float64 }
		Spans    map[string]struct {
			Rates map[string][]float64
		}
	}
	var text string
	within(s.t, patient, "the statistics", func() bool {
		text = s.ask("GET", "/stats", "", "Accept", jsonType).body
		if err := json.Unmarshal([]byte(text), &told); err != nil {
			s.t.Fatalf("%v: %.300s", err, text)
		}
		return len(told.Counters) > 0 && told.Requests.Rate > 0
	})
	total := int64(0)
	for _, c := range told.Counters {
		if c.Total < 0 {
			s.t.Errorf("a counter of %d", c.Total)
		}
		total += c.Total
	}
	// A hundred thousand a second is more than these tests can ask for.
	const absurd = 100_000
	if total == 0 || told.Requests.Rate > absurd {
		s.t.Errorf("%d requests in the last minutes, %v a second", total, told.Requests.Rate)
	}
	for name, span := range told.Spans {
		for class, rates := range span.Rates {
			for _, r := range rates {
				if r < 0 || r > absurd {
					s.t.Errorf("%s: %s: %v a second", name, class, r)
				}
			}
		}
	}
}

// TestClockIsSetUnderMessages sets the clock while messages wait for their
// time, for an application that is away, and to come again: none is lost. Set
// back, what waits waits longer by as much.
func TestClockIsSetUnderMessages(t *testing.T) {
	for way, by := range map[string]time.Duration{"forward": time.Hour, "back": -5 * time.Second} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			w, clock := withClock(t, newWorld(t, noConsul))
			l := newLedger("work")
			app := newConsumer(t, l)
			s := w.sidecar(t, "--subscribe=topic=clock,queue=work,ack_wait=2s,max_deliver=0,url=http://"+app.addr+"/work")
			publish := func(message string, header ...string) {
				t.Helper()
				l.offer(message)
				s.ask("POST", "/broker?topic=clock", bodyOf(message), header...).is(t, 200, "")
				l.publish(message)
			}
			within(t, patient, "the queue to be there", func() bool {
				publish("first")
				return l.has("first")
			})
			app.crash()
			for i := range 20 {
				publish(fmt.Sprint("waiting/", i))
				publish(fmt.Sprint("delayed/", i), "Micro-Delay", "3s")
			}
			clock.set(by)
			if err := app.start(); err != nil {
				t.Fatal(err)
			}
			publish("later")
			publish("later-delayed", "Micro-Delay", "1s")
			within(t, 3*patient, "every message to come", func() bool { return l.missing() == 0 })
		})
	}
}
