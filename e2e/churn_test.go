//go:build unix

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// How long registrations change, how fast, and how often the engine is killed
// meanwhile: go test ./e2e -run Churn/etcd -churn 1h -churn_rate 200 -timeout 2h.
var (
	churnTime    = flag.Duration("churn", 8*time.Second, "length of the churn test")
	churnRate    = flag.Int("churn_rate", 100, "changes a second of the churn test")
	churnRestart = flag.Duration("churn_restart", 3*time.Second, "time between two restarts of the engine in the churn test")
)

// TestChurn changes registrations all the time, with an engine that is killed
// again and again, and watches one sidecar that uses them: what it calls must
// answer, and in the end it must hold no more than in the beginning. What it
// costs in between has to be level, which only a long run can tell.
func TestChurn(t *testing.T) {
	for name, begin := range map[string]func(*testing.T) *churn{"embedded": churnEmbedded, "etcd": churnExternal("etcd"), "nats": churnExternal("nats")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := begin(t)
			app, m := newGreeter(t), c.measured
			m.register("", "churn.app", "1", app.addr)
			calls := m.load("/app/say/hello", john, contentType, jsonType)
			changes := m.open("/registry")
			within(t, patient, "the first calls", func() bool { return calls.count() > 10 })
			before := m.cost()
			counted := drain(changes)
			costs := c.run(t)
			c.removeAll()
			within(t, 2*patient, "everything else to be forgotten", func() bool { return m.metric("micro_services_in_use") == 1 })
			within(t, 2*patient, "no goroutine to be left over", func() bool { return m.cost().goroutines <= before.goroutines+10 })
			calls.clean("calls during the churn")
			t.Logf("%d changes, %d refused while the engine was away, %d restarts of it, %d events to the watch",
				c.changes.Load(), c.refused.Load(), c.restarts, counted.Load())
			if c.changes.Load() == 0 || c.restarts == 0 || counted.Load() == 0 {
				t.Error("the test has tested nothing")
			}
			level(t, costs)
			t.Logf("at the beginning %v, at the end %v", before, m.cost())
		})
	}
}

// churn is what changes all the time.
type churn struct {
	measured *sidecar
	writers  [2]atomic.Pointer[sidecar]
	restart  func() // of the engine, which loses nothing
	node     string // port of a node at every loopback address

	changes, refused atomic.Int64
	restarts         int

	mu    sync.Mutex
	known []string // bodies that may be deregistered
	named int      // names so far
}

const churnFlags = "--namespace=churn"

// churnExternal has an engine of its own, which is killed and started again.
func churnExternal(name string) func(*testing.T) *churn {
	return func(t *testing.T) *churn {
		engine := faultyEngines()[name](t)
		w := newWorld(t, noConsul).with(engine.env...)
		c := &churn{measured: w.sidecar(t, churnFlags), node: anywhere(t)}
		for i := range c.writers {
			c.writers[i].Store(w.sidecar(t, churnFlags))
		}
		c.restart = func() {
			engine.stop()
			<-time.After(300 * time.Millisecond)
			engine.start()
		}
		return c
	}
}

// churnEmbedded has the host of the embedded engine killed; another sidecar
// takes over, but never the measured one, which is paused for that moment.
func churnEmbedded(t *testing.T) *churn {
	w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded")
	c := &churn{node: anywhere(t)}
	for i := range c.writers {
		c.writers[i].Store(w.sidecar(t, churnFlags))
	}
	c.measured = w.sidecar(t, churnFlags)
	host := func() (pid int) {
		var said struct{ PID int }
		text, err := os.ReadFile(filepath.Join(w.home, ".local", "state", "micro", "engine", "host.json"))
		if err == nil && json.Unmarshal(text, &said) == nil {
			pid = said.PID
		}
		return pid
	}
	c.restart = func() {
		before := host()
		for i := range c.writers {
			if s := c.writers[i].Load(); s.cmd.Process.Pid == before {
				c.measured.signal(syscall.SIGSTOP)
				s.kill()
				within(t, patient, "another host", func() bool { now := host(); return now != 0 && now != before })
				c.measured.signal(syscall.SIGCONT)
				c.writers[i].Store(w.sidecar(t, churnFlags))
				return
			}
		}
		t.Errorf("the host is process %d, none of the writers", before)
	}
	return c
}

// anywhere is the port of a greeter at every loopback address, so that many
// nodes have addresses of their own.
func anywhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: &greeter{}, ReadHeaderTimeout: patient}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = s.Close(); <-done })
	_, port, _ := net.SplitHostPort(l.Addr().String()) // a listener's own
	return port
}

// run changes, calls and restarts for as long as the flag says, and returns
// what the measured sidecar cost meanwhile.
func (c *churn) run(t *testing.T) (costs []cost) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), *churnTime)
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	const workers = 8
	for range workers {
		work.Go(func() {
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			each(ctx, time.Second*workers/time.Duration(*churnRate), func() { c.change(client) })
		})
	}
	work.Go(func() {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		each(ctx, 20*time.Millisecond, func() { c.use(client) })
	})
	work.Go(func() { each(ctx, *churnRestart, func() { c.restart(); c.restarts++ }) })
	each(ctx, *churnTime/40, func() {
		k := c.measured.cost()
		costs = append(costs, k)
		t.Log(k)
	})
	return costs
}

// each does something at the pace until ctx ends.
func each(ctx context.Context, pace time.Duration, do func()) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// change makes one change. Half of the nodes end by their time to live, half
// are removed; one in ten is of a service that was never there before.
func (c *churn) change(client *http.Client) {
	method, query, body := http.MethodPost, fmt.Sprintf("?ttl=%ds", 3+rand.IntN(15)), ""
	c.mu.Lock()
	switch r := rand.IntN(10); {
	case r < 4 && len(c.known) > 100:
		i := rand.IntN(len(c.known))
		method, query, body = http.MethodDelete, "", c.known[i]
		c.known[i] = c.known[len(c.known)-1]
		c.known = c.known[:len(c.known)-1]
	default:
		c.named++
		service := strconv.Itoa(rand.IntN(50))
		if r == 9 {
			service = "new" + strconv.Itoa(c.named)
		}
		body = fmt.Sprintf(`{"Name":"churn.s%s","Nodes":[{"Id":"n%d","Address":"127.0.%d.%d:%s"}]}`,
			service, c.named, rand.IntN(4), 1+rand.IntN(250), c.node)
		if c.known = append(c.known, body); len(c.known) > 2000 {
			c.known = slices.Delete(c.known, 0, 1000) // they end by themselves
		}
	}
	c.mu.Unlock()
	c.changes.Add(1)
	if status := send(client, method, "http://"+c.writers[rand.IntN(len(c.writers))].Load().addr+"/registry"+query, body); status != http.StatusOK {
		c.refused.Add(1)
	}
}

// use has the measured sidecar call what may be there, and now and then what
// never was.
func (c *churn) use(client *http.Client) {
	service := "s" + strconv.Itoa(rand.IntN(60))
	c.mu.Lock()
	if rand.IntN(5) == 0 {
		service = "snew" + strconv.Itoa(rand.IntN(1+c.named))
	}
	c.mu.Unlock()
	send(client, http.MethodPost, "http://"+c.measured.addr+"/"+service+"/say/hello", john)
}

// send returns the status, 0 for none.
func send(client *http.Client, method, url, body string) int {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set(contentType, jsonType)
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// removeAll deregisters what is left, also of what came too late.
func (c *churn) removeAll() {
	for _, body := range c.known {
		c.measured.ask(http.MethodDelete, "/registry", body, contentType, jsonType)
	}
}

// drain takes what comes from k until its end, and counts.
func drain(k *socket) *atomic.Int64 {
	n := new(atomic.Int64)
	done := make(chan struct{})
	k.t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case <-k.frames:
				n.Add(1)
			case <-done:
				return
			}
		}
	}()
	return n
}

// cost is what a sidecar holds at a time: megabytes of its heap that the last
// collection found in use, megabytes resident, goroutines, open files, services.
type cost struct{ heap, resident, goroutines, files, services float64 }

func (k cost) String() string {
	return fmt.Sprintf("%.1f MB of heap, %.1f MB resident, %.0f goroutines, %.0f files, %.0f services in use", k.heap, k.resident, k.goroutines, k.files, k.services)
}

func (s *sidecar) cost() cost {
	m := s.metrics()
	return cost{
		heap:     m["go_memstats_next_gc_bytes"] / 2 / 1e6, // GOGC is 100
		resident: m["process_resident_memory_bytes"] / 1e6, goroutines: m["go_goroutines"],
		files: m["process_open_fds"], services: m["micro_services_in_use"],
	}
}

func (s *sidecar) metric(name string) float64 { return s.metrics()[name] }

// metrics are those without labels.
func (s *sidecar) metrics() map[string]float64 {
	s.t.Helper()
	found := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(s.get("/metrics").body))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			found[name] = n
		}
	}
	return found
}

// level compares the second quarter of a long run with the last.
func level(t *testing.T, costs []cost) {
	t.Helper()
	if *churnTime < 10*time.Minute || len(costs) < 8 {
		return // what has not settled says nothing
	}
	quarter := len(costs) / 4
	early, late := costs[quarter:2*quarter], costs[len(costs)-quarter:]
	for _, of := range []struct {
		what       string
		get        func(cost) float64
		part, room float64 // that it may grow by
	}{
		{"megabytes of heap", func(k cost) float64 { return k.heap }, 0.1, 3},
		{"megabytes resident", func(k cost) float64 { return k.resident }, 0.1, 8},
		{"goroutines", func(k cost) float64 { return k.goroutines }, 0.1, 20},
		{"files", func(k cost) float64 { return k.files }, 0.1, 20},
	} {
		median := func(costs []cost) float64 {
			var all []float64
			for _, k := range costs {
				all = append(all, of.get(k))
			}
			slices.Sort(all)
			return all[len(all)/2]
		}
		was, is := median(early), median(late)
		t.Logf("%s: %.1f in the second quarter, %.1f in the last", of.what, was, is)
		if is > was*(1+of.part)+of.room {
			t.Errorf("%s grew from %.1f to %.1f", of.what, was, is)
		}
	}
}
