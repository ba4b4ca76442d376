//go:build unix

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// soakTime is how long things are killed: go test ./e2e -run Soak -soak 10m.
var soakTime = flag.Duration("soak", 8*time.Second, "length of the soak test, on each engine")

// consumer is an application that takes messages, and that crashes when told:
// its connections break and its port is closed for a moment.
type consumer struct {
	ledger   *ledger
	reliable bool // it refuses nothing
	addr     string

	mu     sync.Mutex
	server *http.Server
	done   chan struct{}
}

func newConsumer(t *testing.T, l *ledger) *consumer {
	t.Helper()
	c := &consumer{ledger: l, addr: testserver.DeadAddr(t)} // its own also while it is closed
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.crash)
	return c
}

func (c *consumer) start() error {
	l, err := testserver.Listen(c.addr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.done = &http.Server{Handler: c, ReadHeaderTimeout: patient}, make(chan struct{})
	server, done := c.server, c.done
	go func() {
		defer close(done)
		_ = server.Serve(l) // it is closed by crash
	}()
	return nil
}

// ServeHTTP takes a message. One in two hundred is refused, to come again.
func (c *consumer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || !c.reliable && rand.IntN(200) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.ledger.arrive(strings.TrimPrefix(r.URL.Path, "/"), strings.Trim(string(body), `"`))
}

func (c *consumer) crash() {
	c.mu.Lock()
	server, done := c.server, c.done
	c.mu.Unlock()
	_ = server.Close()
	<-done
}

// TestSoak kills sidecars, engine hosts among them, the application, pulling
// clients and nodes of the engine's cluster, at random and under load. Every
// message that got a 200 comes to all queues, in one of them in order.
func TestSoak(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		soak(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded"), nil)
	})
	t.Run("nats", func(t *testing.T) {
		servers := testserver.NATSProcesses(t, 3)
		var c cluster
		addresses := make([]string, len(servers))
		for i, s := range servers {
			addresses[i] = s.Addr
			c.nodes = append(c.nodes, s)
		}
		c.whole = testserver.NATSCurrent(t, addresses...)
		soak(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=nats", "MICRO_BROKER_ADDRESS=nats://"+strings.Join(addresses, ",")), &c)
	})
	t.Run("redis", func(t *testing.T) { // a server of its own, that writes before it answers
		server := testserver.Redis(t)
		soak(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=redis", "MICRO_BROKER_ADDRESS=redis://"+server.Addr),
			&cluster{nodes: []engineNode{server}, most: 5 * time.Second})
	})
	t.Run("sentinel", func(t *testing.T) {
		if *soakTime < time.Minute {
			t.Skip("a replica takes over in ten seconds or so: not in less than -soak=1m")
		}
		servers, sentinel := testserver.RedisReplicas(t, 3)
		c := cluster{most: 30 * time.Second}
		for _, s := range servers {
			c.nodes = append(c.nodes, s)
		}
		soak(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=redis", "MICRO_BROKER_ADDRESS=redis://"+sentinel+"?master=main&replicas=1"), &c)
	})
	t.Run("rabbitmq", func(t *testing.T) {
		servers := testserver.RabbitMQCluster(t, 3)
		c := cluster{most: 20 * time.Second}
		addresses := make([]string, len(servers))
		for i, s := range servers {
			addresses[i] = s.Addr
			c.nodes = append(c.nodes, s)
		}
		soak(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=rabbitmq", "MICRO_BROKER_ADDRESS=amqp://"+strings.Join(addresses, ",")), &c)
	})
}

// soak tests one engine; c is its cluster, if it has one.
func soak(t *testing.T, w world, c *cluster) {
	l := newLedger("billing", "audit", "pull")
	app := newConsumer(t, l)
	args := []string{
		"--subscribe=topic=orders,queue=billing,ack_wait=2s,max_deliver=0,url=http://" + app.addr + "/billing",
		"--subscribe=topic=orders,queue=audit,ordered=true,ack_wait=2s,max_deliver=0,url=http://" + app.addr + "/audit",
	}
	var sidecars [2]*sidecar
	var addresses [2]atomic.Pointer[string]
	begin := func(i int) {
		t.Helper()
		s := w.launch(t, args...)
		within(t, 4*patient, "a sidecar to be ready", func() bool { return s.get("/readyz").status == 200 })
		sidecars[i] = s
		addresses[i].Store(&s.addr)
	}
	begin(0)
	begin(1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reading, end := context.WithCancel(t.Context())
	defer end()
	p := puller{addresses: addresses[:], ledger: l}
	var publishers, pullers sync.WaitGroup
	defer pullers.Wait()
	defer end()
	for range 2 {
		pullers.Go(func() { p.run(reading) })
	}
	awaitQueues(ctx, t, l, addresses[:])

	for key := range 4 {
		publishers.Go(func() { publishOrders(ctx, fmt.Sprintf("key%d", key), addresses[:], l) })
	}
	kills, crashes := 0, 0
	for over := time.Now().Add(*soakTime); time.Now().Before(over) || kills == 0 || c.spared() && time.Now().Before(over.Add(2*patient)); {
		<-time.After(time.Duration(200+rand.IntN(600)) * time.Millisecond)
		if c != nil {
			c.strike(t)
		}
		l.strike()
		if rand.IntN(3) == 0 {
			app.crash()
			<-time.After(time.Duration(rand.IntN(300)) * time.Millisecond)
			if err := app.start(); err != nil {
				t.Fatal(err)
			}
			crashes++
			continue
		}
		i := rand.IntN(2)
		sidecars[i].kill()
		begin(i)
		kills++
	}
	if c != nil {
		c.settle(t)
	}
	stop()
	publishers.Wait()
	awaitAll(t, w, l)
	for _, fault := range l.faults("audit") {
		t.Error(fault)
	}
	noDeadLetters(t, w)
	if len(l.published) < 10 || kills == 0 || c.spared() {
		t.Error("the test has tested nothing")
	}
	t.Logf("%d messages to 3 queues, %d duplicates; %d kills of sidecars, %d of engine nodes, %d crashes of the application, %d cuts of pulling clients%s",
		l.stored(), l.duplicates(), kills, c.count(), crashes, p.cuts.Load(), l.report())
}

// awaitAll returns when every message has come to every queue; it waits for as
// long as some come.
func awaitAll(t *testing.T, w world, l *ledger) {
	t.Helper()
	least, last := l.missing(), time.Now()
	for least > 0 {
		<-time.After(50 * time.Millisecond)
		if n := l.missing(); n < least {
			least, last = n, time.Now()
		} else if time.Since(last) > 2*patient {
			_, queues, complaint := w.run(t, "queue", "list", "orders")
			t.Fatalf("%d messages do not come:%s\nThe queues: %s%s", least, l.missed(), queues, complaint)
		}
	}
}

// noDeadLetters asks for them, where the engine can tell.
func noDeadLetters(t *testing.T, w world) {
	t.Helper()
	status, out, complaint := w.run(t, "dead", "list", "orders", "--output=json")
	if (status != 0 || out != "[]\n") && !strings.Contains(complaint, "no durable queues that can be looked at") {
		t.Errorf("dead letters: %s%s", out, complaint)
	}
}

// awaitQueues returns when all queues are there: a message has come to each.
func awaitQueues(ctx context.Context, t *testing.T, l *ledger, addresses []atomic.Pointer[string]) {
	t.Helper()
	client := &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var sent []string
	within(t, 4*patient, "all queues to get messages", func() bool {
		message := fmt.Sprintf("first/%06d", len(sent))
		l.offer(message)
		if publishOrder(ctx, client, *addresses[0].Load(), "first", message) == nil {
			sent = append(sent, message)
		}
		<-time.After(50 * time.Millisecond)
		return slices.ContainsFunc(sent, l.has)
	})
}

// publishOrders publishes one message after the other, each until it got a 200:
// with its ID, so that the ones in doubt come once.
func publishOrders(ctx context.Context, key string, addresses []atomic.Pointer[string], l *ledger) {
	client := &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		message := fmt.Sprintf("%s/%06d", key, n)
		l.offer(message)
		for ctx.Err() == nil {
			address := *addresses[rand.IntN(len(addresses))].Load()
			if err := publishOrder(ctx, client, address, key, message); err == nil {
				l.publish(message)
				<-pace.C // what is ordered takes its time
				break
			}
		}
	}
}

func publishOrder(ctx context.Context, client *http.Client, address, key, message string) error {
	return postOrder(ctx, client, address+"/broker?topic=orders", key, message, bodyOf(message))
}

// postOrder returns nil when the answer was 200.
func postOrder(ctx context.Context, client *http.Client, url, key, id, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Micro-Id", id)
	req.Header.Set("Micro-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
