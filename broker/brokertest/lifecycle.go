package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/broker"
)

// eventually waits until ok holds.
func (s *suite) eventually(what string, ok func() bool) {
	s.Helper()
	deadline := time.Now().Add(s.o.Wait)
	for !ok() {
		if time.Now().After(deadline) {
			s.Fatalf("not within %v: %s", s.o.Wait, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func testSerial(s *suite) {
	a, b := s.broker(), s.broker()
	const topic, publishers, each = "brokertest.serial", 4, 25
	var inside atomic.Int32
	var calls, overlaps atomic.Int32
	s.subscribe(a, topic, "", func(broker.Delivery) {
		if inside.Add(1) > 1 {
			overlaps.Add(1)
		}
		time.Sleep(100 * time.Microsecond) // long enough for another call to meet this one
		inside.Add(-1)
		calls.Add(1)
	})
	var wg sync.WaitGroup
	for i := range publishers {
		from := []broker.Broker{a, b}[i%2]
		wg.Go(func() {
			for _, body := range numbered("", each) {
				if err := from.Publish(s.ctx(), topic, broker.Message{Body: []byte(body)}); err != nil {
					s.Errorf("Publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s.eventually("all messages arrive", func() bool { return calls.Load() == publishers*each })
	if n := overlaps.Load(); n > 0 {
		s.Errorf("the handler was called %d times while it was running", n)
	}
}

func testEcho(s *suite) {
	b := s.broker()
	r, _ := s.record(b, "brokertest.echo.answer", "")
	s.subscribe(b, "brokertest.echo.ask", "", func(d broker.Delivery) {
		if err := b.Publish(s.ctx(), "brokertest.echo.answer", d.Message); err != nil {
			s.Errorf("Publish from a handler: %v", err)
		}
	})
	want := numbered("", 10)
	for _, body := range want {
		s.publish(b, "brokertest.echo.ask", body)
	}
	s.exactly(r, want...)
}

func testSlow(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.slow"
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	slow := newRecorder()
	s.subscribe(a, topic, "", func(d broker.Delivery) {
		<-release
		slow.handle(d)
	})
	defer free()
	quick, _ := s.record(a, topic, "")
	other, _ := s.record(a, topic+".other", "")
	want := numbered("", 20)
	for _, body := range want {
		s.publish(b, topic, body)
		s.publish(b, topic+".other", body)
	}
	s.exactly(quick, want...)
	s.exactly(other, want...)
	if n := len(slow.bodies()); n > 0 {
		s.Fatalf("%d messages went through a blocked handler", n)
	}
	free()
	s.exactly(slow, want...)
}

func testAfterClose(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.afterclose"
	ctx, stop := context.WithCancel(s.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := b.Publish(ctx, topic, broker.Message{Body: []byte("x")}); err != nil && ctx.Err() == nil {
				s.Errorf("Publish: %v", err)
				return
			}
		}
	})
	defer wg.Wait()
	defer stop()
	for range 10 {
		var closed atomic.Bool
		var late atomic.Int32
		called := make(chan struct{}, 1)
		sub := s.subscribe(a, topic, "", func(broker.Delivery) {
			if closed.Load() {
				late.Add(1)
			}
			select {
			case called <- struct{}{}:
			default:
			}
		})
		select {
		case <-called:
		case <-time.After(s.o.Wait):
			s.Fatal("nothing arrived")
		}
		if err := sub.Close(); err != nil {
			s.Fatalf("Close: %v", err)
		}
		closed.Store(true)
		time.Sleep(s.o.Quiet / 10)
		if n := late.Load(); n > 0 {
			s.Fatalf("the handler was called %d times after Close", n)
		}
	}
}

func testCloseTwice(s *suite) {
	b := s.broker()
	sub := s.subscribe(b, "brokertest.twice", "", func(broker.Delivery) {})
	for range 2 {
		if err := sub.Close(); err != nil {
			s.Errorf("Close of a subscription: %v", err)
		}
	}
	var wg sync.WaitGroup
	other := s.subscribe(b, "brokertest.twice", "", func(broker.Delivery) {})
	for range 4 {
		wg.Go(func() {
			if err := other.Close(); err != nil {
				s.Errorf("Close at once with another: %v", err)
			}
		})
	}
	wg.Wait()
}

func testClosedBroker(s *suite) {
	b := s.open(s.T) // one of its own: others must not be closed with it
	r := newRecorder()
	sub := s.subscribe(b, "brokertest.closed", "", r.handle)
	for range 2 {
		if err := b.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	}
	if err := b.Publish(s.ctx(), "brokertest.closed", broker.Message{}); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Publish after Close: %v, want ErrClosed", err)
	}
	_, err := b.Subscribe(s.ctx(), "brokertest.closed", broker.SubscribeOptions{}, r.handle)
	if !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Subscribe after Close: %v, want ErrClosed", err)
	}
	if err := sub.Close(); err != nil {
		s.Errorf("Close of a subscription of a closed broker: %v", err)
	}
	if !s.o.Alone {
		s.publish(s.broker(), "brokertest.closed", "late")
		s.quiet()
	}
	if got := r.bodies(); len(got) > 0 {
		s.Errorf("a subscription of a closed broker got %q", got)
	}
}

func testContext(s *suite) {
	b := s.broker()
	r, _ := s.record(b, "brokertest.context", "")
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	start := time.Now()
	if err := b.Publish(ctx, "brokertest.context", broker.Message{Body: []byte("no")}); !errors.Is(err, context.Canceled) {
		s.Errorf("Publish with an ended context: %v, want context.Canceled", err)
	}
	late := newRecorder()
	sub, err := b.Subscribe(ctx, "brokertest.context", broker.SubscribeOptions{}, late.handle)
	if !errors.Is(err, context.Canceled) {
		s.Errorf("Subscribe with an ended context: %v, want context.Canceled", err)
	}
	if err == nil {
		_ = sub.Close()
	}
	if d := time.Since(start); d > 10*time.Second {
		s.Errorf("an ended context was honoured after %v", d)
	}
	s.publish(b, "brokertest.context", "yes")
	s.exactly(r, "yes")
	if got := late.bodies(); len(got) > 0 {
		s.Errorf("a failed subscription got %q", got)
	}
}

func testConcurrency(s *suite) {
	a, b := s.broker(), s.broker()
	const topics, each = 8, 25
	var wg sync.WaitGroup
	for i := range topics {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		topic := fmt.Sprintf("brokertest.concurrency.%d", i/2) // two subscribers and publishers a topic
		prefix := fmt.Sprintf("%d-", i)
		wg.Go(func() {
			r := newRecorder()
			sub, err := to.Subscribe(s.ctx(), topic, broker.SubscribeOptions{}, r.handle)
			if err != nil {
				s.Errorf("Subscribe: %v", err)
				return
			}
			want := numbered(prefix, each)
			for _, body := range want {
				if err := from.Publish(s.ctx(), topic, broker.Message{Body: []byte(body)}); err != nil {
					s.Errorf("Publish: %v", err)
				}
			}
			mine := func() []string {
				return slices.DeleteFunc(r.bodies(), func(body string) bool { return body[:len(prefix)] != prefix })
			}
			for deadline := time.Now().Add(s.o.Wait); len(mine()) < each && time.Now().Before(deadline); {
				time.Sleep(2 * time.Millisecond)
			}
			got := mine()
			if !s.o.Ordered {
				slices.Sort(got)
			}
			if !slices.Equal(got, want) {
				s.Errorf("topic %s: arrived %s, want %s", topic, shorten(got), shorten(want))
			}
			if err := sub.Close(); err != nil {
				s.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
}
