//go:build unix

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// orderBook is an application's view of an ordered queue: it notes what is
// wrong with the order in which requests begin and end. Messages of a key are
// numbered from 1. It is safe for concurrent use.
type orderBook struct {
	mu     sync.Mutex
	done   map[string]int           // key → all up to this were answered with 200
	inside map[string][]*bookedCall // key → what is being worked on
	faults []string
	again  int // deliveries of what was done
}

// bookedCall is a request under way.
type bookedCall struct {
	key     string
	n       int
	overlap bool // another began meanwhile
}

func newOrderBook() *orderBook {
	return &orderBook{done: map[string]int{}, inside: map[string][]*bookedCall{}}
}

func (b *orderBook) begin(key string, n int) *bookedCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch done := b.done[key]; {
	case n > done+1:
		b.faults = append(b.faults, fmt.Sprintf("%s/%d came before %d was done", key, n, done+1))
	case n <= done:
		b.again++
	}
	for _, other := range b.inside[key] {
		other.overlap = true
	}
	c := &bookedCall{key: key, n: n}
	b.inside[key] = append(b.inside[key], c)
	return c
}

// end ends a request: it was answered, with success or not, or it was broken
// off by a caller that is gone.
func (b *orderBook) end(c *bookedCall, answered, success bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inside[c.key] = slices.DeleteFunc(b.inside[c.key], func(other *bookedCall) bool { return other == c })
	if answered && c.overlap {
		b.faults = append(b.faults, fmt.Sprintf("%s/%d was not done when another came", c.key, c.n))
	}
	if success {
		b.done[c.key] = max(b.done[c.key], c.n)
	}
}

func (b *orderBook) found() (faults []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.faults)
}

func (b *orderBook) doneOf(key string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done[key]
}

// ServeHTTP takes "key/n". One in fifty is refused, to come again.
func (b *orderBook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var n int
	key := r.Header.Get("Micro-Key")
	if _, err := fmt.Fscanf(r.Body, key+"/%d", &n); err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	c := b.begin(key, n)
	select {
	case <-time.After(time.Duration(rand.IntN(5)) * time.Millisecond):
	case <-r.Context().Done():
		b.end(c, false, false)
		return
	}
	ok := rand.IntN(50) > 0
	b.end(c, true, ok)
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// The checker finds what it is there for.
func TestOrderBook(t *testing.T) {
	const ok, refused, gone = "ok", "refused", "gone"
	type step struct {
		key string
		n   int
		end string // "" begins
	}
	for name, test := range map[string]struct {
		steps []step
		want  string
	}{
		"in order":        {[]step{{"a", 1, ""}, {"b", 1, ""}, {"a", 1, ok}, {"a", 2, ""}, {"b", 1, ok}, {"a", 2, ok}}, ""},
		"again":           {[]step{{"a", 1, ""}, {"a", 1, refused}, {"a", 1, ""}, {"a", 1, ok}, {"a", 1, ""}, {"a", 1, ok}, {"a", 2, ""}}, ""},
		"overtaken":       {[]step{{"a", 1, ""}, {"a", 1, refused}, {"a", 2, ""}}, "a/2 came before 1 was done"},
		"left out":        {[]step{{"a", 1, ""}, {"a", 1, ok}, {"a", 3, ""}}, "a/3 came before 2 was done"},
		"two at a time":   {[]step{{"a", 1, ""}, {"a", 1, ""}, {"a", 1, ok}}, "a/1 was not done when another came"},
		"its caller died": {[]step{{"a", 1, ""}, {"a", 1, ""}, {"a", 1, gone}, {"a", 1, ok}}, ""},
	} {
		b := newOrderBook()
		for _, s := range test.steps {
			if s.end == "" {
				b.begin(s.key, s.n)
				continue
			}
			b.end(b.inside[s.key][0], s.end != gone, s.end == ok)
		}
		if got := strings.Join(b.found(), "; "); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// orderedEngines are those that keep messages.
var orderedEngines = map[string]func(t *testing.T, w world) world{
	"embedded": func(_ *testing.T, w world) world { return w.with("MICRO_BROKER=embedded") },
	"nats": func(t *testing.T, w world) world {
		return w.with("MICRO_BROKER=nats", "MICRO_BROKER_ADDRESS="+testserver.NATS(t).Addr)
	},
	"redis": func(t *testing.T, w world) world {
		return w.with("MICRO_BROKER=redis", "MICRO_BROKER_ADDRESS=redis://"+testserver.Redis(t).Addr)
	},
	"rabbitmq": func(t *testing.T, w world) world {
		return w.with("MICRO_BROKER=rabbitmq", "MICRO_BROKER_ADDRESS=amqp://"+testserver.RabbitMQ(t).Addr)
	},
}

// bookedQueue subscribes the application to a queue.
func bookedQueue(app *httptest.Server, ordered bool) string {
	return fmt.Sprintf("--subscribe=topic=orders,queue=book,ordered=%v,concurrency=8,ack_wait=2s,max_deliver=0,url=%s", ordered, app.URL)
}

// subscribed returns when the sidecar takes messages for its application.
func (s *sidecar) subscribed() {
	s.t.Helper()
	within(s.t, patient, "the subscription", func() bool { return strings.Contains(s.log.String(), "delivering messages to the application") })
}

// TestOrderedKill kills the sidecars of an ordered queue, the one that has the
// turn among them, and stops them for a while, at random and under load. For
// each key the application gets one message at a time, and none before those
// in front of it are done.
func TestOrderedKill(t *testing.T) {
	for name, open := range orderedEngines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testOrderedKill(t, open(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded")))
		})
	}
}

func testOrderedKill(t *testing.T, w world) {
	book := newOrderBook()
	app := httptest.NewServer(book)
	t.Cleanup(app.Close)
	var addresses [1]atomic.Pointer[string]
	publisher := w.sidecar(t)
	addresses[0].Store(&publisher.addr)
	sidecars := []*sidecar{w.sidecar(t, bookedQueue(app, true)), w.sidecar(t, bookedQueue(app, true))}
	sidecars[0].subscribed() // what is published before is kept for nobody
	const keys = 8
	l := newLedger()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var publishers sync.WaitGroup
	for key := range keys {
		publishers.Go(func() { publishOrders(ctx, fmt.Sprintf("key%d", key), addresses[:], l) })
	}
	kills := 0
	for end := time.Now().Add(*soakTime / 2); time.Now().Before(end) || kills < 2; {
		<-time.After(time.Duration(300+rand.IntN(2000)) * time.Millisecond)
		i := rand.IntN(len(sidecars))
		if rand.IntN(3) == 0 { // longer than it may be silent
			sidecars[i].signal(syscall.SIGSTOP)
			<-time.After(time.Duration(2000+rand.IntN(1500)) * time.Millisecond)
			sidecars[i].signal(syscall.SIGCONT)
			continue
		}
		sidecars[i].kill()
		sidecars[i] = w.sidecar(t, bookedQueue(app, true))
		kills++
	}
	stop()
	publishers.Wait()
	last := map[string]int{}
	for message := range l.published {
		var n int
		key, number, _ := strings.Cut(message, "/")
		if _, err := fmt.Sscan(strings.TrimLeft(number, "0"), &n); err != nil {
			t.Fatal(err)
		}
		last[key] = max(last[key], n)
	}
	within(t, 4*patient, "every message to be done", func() bool {
		for key, n := range last {
			if book.doneOf(key) < n {
				return false
			}
		}
		return true
	})
	for _, fault := range book.found() {
		t.Error(fault)
	}
	t.Logf("%d messages of %d keys, %d kills, %d deliveries of what was done", len(l.published), len(last), kills, book.again)
}

// Without ordered=true the test above fails.
func TestUnorderedIsFoundOut(t *testing.T) {
	book := newOrderBook()
	app := httptest.NewServer(book)
	t.Cleanup(app.Close)
	w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded")
	s := w.sidecar(t, bookedQueue(app, false))
	s.subscribed()
	var addresses [1]atomic.Pointer[string]
	addresses[0].Store(&s.addr)
	ctx, stop := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	defer publishers.Wait()
	defer stop()
	publishers.Go(func() { publishOrders(ctx, "key", addresses[:], newLedger()) })
	within(t, patient, "a fault to be found", func() bool { return len(book.found()) > 0 })
}
