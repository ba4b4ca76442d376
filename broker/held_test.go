package broker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/micro/sidecar/broker"
)

// engine is a Holding that notes what it is told, and fails when it is set to.
type engine struct {
	calls []string
	fail  error
}

func (e *engine) call(name string) error {
	if e.fail == nil {
		e.calls = append(e.calls, name)
	}
	return e.fail
}

func (e *engine) Ack(context.Context) error                 { return e.call("ack") }
func (e *engine) Nack(context.Context, time.Duration) error { return e.call("nack") }
func (e *engine) Return(context.Context) error              { return e.call("return") }
func (e *engine) Extend(context.Context) error              { return e.call("extend") }
func (e *engine) Lapse()                                    { e.calls = append(e.calls, "lapse") }

// The protocol of acknowledgement against a model of it: whatever is done, in
// whatever order, with engines that fail and time that passes, a message is
// settled once or lapses once, and every call says what it is.
func TestHeldAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{"ack", "nack", "return", "extend", "fail", "mend", "wait", "wait long"}), 1, 30).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) { walk(t, steps) })
	})
}

func walk(t *testing.T, steps []string) {
	const wait = 10 * time.Second
	e := &engine{}
	h := broker.Hold(broker.Stored{ID: "1"}, 1, wait, e)
	var ended error // of the model
	var want []string
	rest := wait
	pass := func(d time.Duration) {
		time.Sleep(d) // of the bubble's clock
		synctest.Wait()
		if rest -= d; rest <= 0 && ended == nil {
			ended = broker.ErrLapsed
			want = append(want, "lapse")
		}
	}
	for _, step := range steps {
		ctx := t.Context()
		var got error
		switch step {
		case "fail":
			e.fail = errors.New("away")
			continue
		case "mend":
			e.fail = nil
			continue
		case "wait":
			pass(3*time.Second + time.Millisecond)
			continue
		case "wait long":
			pass(wait + time.Millisecond)
			continue
		case "ack":
			got = h.Ack(ctx)
		case "nack":
			got = h.Nack(ctx, time.Second)
		case "return":
			got = h.Return(ctx)
		case "extend":
			got = h.Extend(ctx)
		}
		expected := ended
		if expected == nil {
			expected = e.fail
		}
		if !errors.Is(got, expected) || (got == nil) != (expected == nil) {
			t.Fatalf("%v: %s: %v, want %v", steps, step, got, expected)
		}
		if got == nil {
			want = append(want, step)
			if rest = wait; step != "extend" {
				ended = broker.ErrSettled
			}
		}
		if h.Fresh() != (ended == nil) {
			t.Fatalf("%v: after %s: fresh is %v", steps, step, h.Fresh())
		}
	}
	if ended == nil { // the timer does not outlive the test
		pass(wait + time.Millisecond)
	}
	if len(e.calls) != len(want) {
		t.Fatalf("%v: the engine was told %v, want %v", steps, e.calls, want)
	}
	for i := range want {
		if e.calls[i] != want[i] {
			t.Fatalf("%v: the engine was told %v, want %v", steps, e.calls, want)
		}
	}
}
