package httpbroker

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry/memory"
)

func TestConcurrentPublishersShareLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &counting{Registry: memory.New(), hold: make(chan struct{})}
		b := open(t, r)
		var publishers sync.WaitGroup
		for range 50 {
			publishers.Go(func() { publish(t, b, "t", "x") })
		}
		synctest.Wait() // a question for each generation is under way
		late := r.count()
		close(r.hold)
		publishers.Wait()
		if late != 3 || r.count() > 6 {
			t.Errorf("50 publishes asked %d times at once and %d times in all, want 3 and 6 at most", late, r.count())
		}
	})
}

// A look-up that was under way when a subscription began may not answer for a
// publish that came after it.
func TestLookupsAnswerWithWhatIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &counting{Registry: memory.New(), hold: make(chan struct{})}
		l := newLookups(t.Context(), r, slog.New(slog.DiscardHandler))
		first := l.ask("s")
		synctest.Wait()
		second, third := l.ask("s"), l.ask("s")
		if first == second || second != third {
			t.Error("want those who ask while a question is under way to share the next")
		}
		close(r.hold)
		synctest.Wait()
		if n := r.count(); n != 2 {
			t.Errorf("asked %d times, want 2", n)
		}
		l.wait()
	})
}

func TestLookupsAreBounded(t *testing.T) {
	l := newLookups(t.Context(), memory.New(), slog.New(slog.DiscardHandler))
	for i := range 2 * maxLookups {
		if _, err := l.get(t.Context(), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.wait()
	if n := len(l.names); n > maxLookups {
		t.Errorf("%d names are kept", n)
	}
}

func TestRegistryAway(t *testing.T) {
	r := &counting{Registry: memory.New()}
	b := open(t, r)
	got, _ := subscribe(t, b, "t", "")
	publish(t, b, "t", "1")
	r.fail(true)
	publish(t, b, "t", "2") // to those that were known
	if err := b.Publish(t.Context(), "another topic", broker.Message{}); !errors.Is(err, errAway) {
		t.Errorf("Publish to a topic of which nothing is known: %v", err)
	}
	r.fail(false)
	publish(t, b, "t", "3")
	for _, want := range []string{"1", "2", "3"} {
		if d := receive(t, got); string(d.Body) != want {
			t.Errorf("got %q, want %q", d.Body, want)
		}
	}
	fresh := &counting{Registry: memory.New(), failing: true}
	unknown := open(t, fresh)
	if err := unknown.Publish(t.Context(), "t", broker.Message{}); !errors.Is(err, errAway) {
		t.Errorf("Publish when nothing is known: %v", err)
	}
	_, err := unknown.Subscribe(t.Context(), "t", broker.SubscribeOptions{}, func(broker.Delivery) {})
	if !errors.Is(err, errAway) || !strings.Contains(err.Error(), "micro.http.broker") && !strings.Contains(err.Error(), "topic:t") {
		t.Errorf("Subscribe: %v", err)
	}
}
