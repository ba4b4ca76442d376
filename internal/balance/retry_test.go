package balance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
)

var errLater = errors.New("503")

// Which failures are followed by another try: only those of requests that may be
// carried out twice, or that reached nobody.
func TestWhatIsTriedAgain(t *testing.T) {
	for _, test := range []struct {
		name       string
		retries    int
		repeatable bool
		result     Result
		tries      int
	}{
		{"it reached nobody", 1, false, Result{Err: errNotSent, Fate: Unreached}, 3},
		{"the node refused it", 1, false, Result{Err: errNotSent, Fate: Refused}, 2},
		{"it may have been carried out", 1, false, Result{Err: errSent, Fate: Failed}, 1},
		{"it may be carried out twice", 1, true, Result{Err: errSent, Fate: Failed}, 2},
		{"and twice more", 2, true, Result{Err: errSent, Fate: Failed}, 3},
		{"retries are off", 0, true, Result{Err: errSent, Fate: Failed}, 1},
		{"retries are off, and it reached nobody", 0, true, Result{Err: errNotSent, Fate: Unreached}, 1},
		{"its body is gone", 1, true, Result{Err: errSent, Fate: Failed, Final: true}, 1},
		{"the client's fault", 1, true, Result{Err: errSent, Fate: Blameless}, 1},
		{"the service's own error", 1, true, Result{Err: errSent}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, tries := &Balancer{Pick: P2C, Retries: test.retries}, map[*discovery.Node]int{}
			count := 0
			err := b.Do(t.Context(), service(4), Request{Repeatable: test.repeatable}, func(try Try) Result {
				tries[try.Node]++
				if count++; count < test.tries || test.tries < 3 {
					return test.result
				}
				return Result{}
			})
			if count != test.tries || len(tries) != count {
				t.Errorf("%d tries on %d nodes, want %d; %v", count, len(tries), test.tries, err)
			}
		})
	}
}

// The one node there is gets the request again, after a pause.
func TestTheSameNodeAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Balancer{Pick: P2C, Retries: 3}
		var at []time.Time
		err := b.Do(t.Context(), service(1), Request{}, func(Try) Result {
			at = append(at, time.Now())
			return ends(errNotSent)
		})
		if !errors.Is(err, errNotSent) || len(at) != 4 {
			t.Fatalf("%d tries, %v", len(at), err)
		}
		for i, longest := range []time.Duration{50, 100, 200} {
			longest *= time.Millisecond
			if pause := at[i+1].Sub(at[i]); pause < longest/2 || pause > longest {
				t.Errorf("pause %d is %v, want up to %v", i, pause, longest)
			}
		}
	})
}

// No try begins after the request's time, nor a pause that would end then.
func TestNeverPastTheTotalTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, asked := range []Request{{Repeatable: true, Timeout: time.Second}, {Repeatable: true}} {
			b := &Balancer{Pick: P2C, Retries: 100}
			ctx := t.Context()
			if asked.Timeout == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Second)
				defer cancel()
			}
			begun, tries := time.Now(), 0
			err := b.Do(ctx, service(3), asked, func(try Try) Result {
				tries++
				if left := time.Second - time.Since(begun); try.Limit <= 0 || try.Limit > left {
					t.Errorf("try %d may take %v of %v", tries, try.Limit, left)
				}
				time.Sleep(min(try.Limit, 300*time.Millisecond))
				return ends(errSent)
			})
			if took := time.Since(begun); took > time.Second || tries < 3 {
				t.Errorf("%d tries in %v: %v", tries, took, err)
			}
		}
	})
}

// Half of the time goes to a try that another node may follow, all of it to
// others; a node that is known to be slow gets more.
func TestTheTimeOfATry(t *testing.T) {
	const all = 4 * time.Second
	for _, test := range []struct {
		name        string
		nodes       int
		repeatable  bool
		retries     int
		try, usual  time.Duration
		total, want time.Duration
	}{
		{"half", 2, true, 1, 0, 0, all, all / 2},
		{"no other node", 1, true, 1, 0, 0, all, all},
		{"it must not be repeated", 2, false, 1, 0, 0, all, all},
		{"no retries", 2, true, 0, 0, 0, all, all},
		{"it usually takes so long", 2, true, 1, 0, 3 * all / 8, all, 3 * all / 4},
		{"it usually takes longer", 2, true, 1, 0, all, all, all},
		{"as set", 2, true, 1, time.Second, 0, all, time.Second},
		{"as set, whatever else", 1, false, 0, time.Second, all, all, time.Second},
		{"as set, but the total is shorter", 1, false, 0, 2 * all, 0, all, all},
		{"no end", 2, true, 1, 0, 0, 0, 0},
		{"as set, without an end", 2, true, 1, time.Second, 0, 0, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := &Balancer{Pick: P2C, Retries: test.retries, TryTimeout: test.try}, service(test.nodes)
				for _, n := range s.Nodes {
					n.Load.Latency.Store(int64(test.usual))
				}
				_ = b.Do(t.Context(), s, Request{Repeatable: test.repeatable, Timeout: test.total}, func(try Try) Result {
					if try.Limit != test.want || try.Cut != (test.want != test.total) {
						t.Errorf("%v, cut: %v; want %v", try.Limit, try.Cut, test.want)
					}
					return Result{}
				})
			})
		})
	}
}

// Nobody is asked again before the node said; not at all when that is too late.
func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			after time.Duration
			tries int
		}{{0, 2}, {time.Second, 2}, {4 * time.Second, 2}, {5 * time.Second, 1}, {time.Hour, 1}} {
			b := &Balancer{Pick: P2C, Retries: 1}
			begun, tries := time.Now(), 0
			_ = b.Do(t.Context(), service(3), Request{Repeatable: true, Timeout: 5 * time.Second}, func(Try) Result {
				if tries++; tries == 2 && time.Since(begun) < test.after {
					t.Errorf("asked again after %v, %v was said", time.Since(begun), test.after)
				}
				return Result{Err: errLater, Fate: Failed, RetryAfter: test.after}
			})
			if tries != test.tries || test.tries == 1 && time.Since(begun) != 0 {
				t.Errorf("Retry-After %v: %d tries in %v", test.after, tries, time.Since(begun))
			}
		}
	})
}

// A service that always fails sees a fifth more than what comes, and ten a
// second, however many may be sent again, and whatever went well before.
func TestTheBudget(t *testing.T) {
	for _, rate := range []int{1, 10, 100, 500, 5000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := &Balancer{Pick: P2C, Retries: 3}, service(3)
				var seen atomic.Int64
				var failing atomic.Bool
				send := func(length time.Duration) {
					for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Second / time.Duration(rate)) {
						go func() {
							_ = b.Do(t.Context(), s, Request{Repeatable: true, Timeout: time.Minute}, func(Try) Result {
								if seen.Add(1); failing.Load() {
									return Result{Err: errLater, Fate: Failed}
								}
								return Result{}
							})
						}()
						synctest.Wait()
					}
				}
				send(10 * time.Second)
				seen.Store(0)
				failing.Store(true)
				const seconds = 20
				send(seconds * time.Second)
				// What a second earns may be spent at its begin.
				most := 1.2*float64(rate*seconds) + 10*seconds + 10 + .2*float64(rate)
				if least := min(float64(4*rate*seconds), 1.2*float64(rate*seconds)+10*seconds) * .9; float64(seen.Load()) > most || float64(seen.Load()) < least {
					t.Errorf("the service saw %d, want %.0f to %.0f", seen.Load(), least, most)
				}
				time.Sleep(time.Minute) // for those that wait
			})
		})
	}
}

// What took its client's short time, and not the sidecar's, is no failure of the
// node.
func TestShortTimeoutsAreTheClients(t *testing.T) {
	late := &transport.NodeError{Sent: true, Err: context.DeadlineExceeded}
	for _, test := range []struct {
		asked    Request
		try      time.Duration
		failures int
	}{
		{Request{Timeout: time.Second}, 0, 1},
		{Request{Timeout: time.Second, Shortened: true}, 0, 0},
		{Request{Timeout: time.Second, Shortened: true}, time.Millisecond, 1},
		{Request{Shortened: true}, 0, 0},
	} {
		b, s := &Balancer{Pick: P2C, Retries: 1, TryTimeout: test.try}, service(1)
		_ = b.Do(t.Context(), s, test.asked, func(Try) Result { return Judge(t.Context(), late) })
		if got := s.Nodes[0].State().Failures; got != test.failures {
			t.Errorf("%+v: %d failures, want %d", test, got, test.failures)
		}
	}
}

// That the time ran out is said once, whether the last try says it or something
// else.
func TestWhatRanOutOfTimeSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, last := range []error{context.DeadlineExceeded, errors.New("reset")} {
			b := &Balancer{Pick: P2C, Retries: 1}
			err := b.Do(t.Context(), service(1), Request{Timeout: time.Second}, func(try Try) Result {
				time.Sleep(try.Limit)
				return Judge(t.Context(), &transport.NodeError{Sent: true, Err: last})
			})
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, last) || strings.Count(err.Error(), "deadline") != 1 {
				t.Errorf("a try that ended with %q: %v", last, err)
			}
		}
	})
}

func TestJudge(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	lost := errors.New("reset")
	for _, test := range []struct {
		ctx   context.Context
		err   error
		fate  Fate
		after time.Duration
	}{
		{t.Context(), nil, Answered, 0},
		{t.Context(), &transport.ServiceError{Code: 500}, Answered, 0},
		{t.Context(), &transport.ServiceError{Code: 503}, Failed, 0},
		{t.Context(), &transport.LaterError{After: time.Second, Err: &transport.ServiceError{Code: 503}}, Failed, time.Second},
		{t.Context(), &transport.NodeError{Sent: true, Status: 200, Err: lost}, Answered, 0},
		{t.Context(), &transport.NodeError{Sent: true, Status: 404, Err: lost}, Answered, 0},
		{t.Context(), &transport.LaterError{After: time.Hour, Err: &transport.NodeError{Sent: true, Status: 502, Err: lost}}, Failed, time.Hour},
		{t.Context(), &transport.NodeError{Sent: true, Err: lost}, Failed, 0},
		{t.Context(), &transport.NodeError{Err: lost}, Unreached, 0},
		{t.Context(), &transport.NodeError{Err: context.DeadlineExceeded}, Unreached, 0},
		{t.Context(), &transport.NodeError{Refused: true, Err: lost}, Refused, 0},
		{t.Context(), &transport.NodeError{Sent: true, Err: context.DeadlineExceeded}, Failed, 0},
		{gone, &transport.NodeError{Sent: true, Err: context.Canceled}, Blameless, 0},
		{gone, &transport.NodeError{Err: lost}, Blameless, 0},
		{t.Context(), httpmsg.Errorf(415, "no"), Blameless, 0},
		{t.Context(), lost, Blameless, 0},
	} {
		if got := Judge(test.ctx, test.err); got.Fate != test.fate || got.RetryAfter != test.after || !errors.Is(got.Err, test.err) {
			t.Errorf("%#v: %+v, want %d", test.err, got, test.fate)
		}
	}
}

// Whatever nodes do: a request that may have been carried out is sent again only
// when it may be carried out twice; it never comes to more tries that reached a
// node than are allowed; nobody is tried again before the others.
func TestNothingIsRepeatedUndeclared(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &Balancer{
				Pick:       pickers[rapid.SampledFrom(Selectors()).Draw(rt, "selector")],
				Retries:    rapid.IntRange(0, 4).Draw(rt, "retries"),
				TryTimeout: rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(rt, "try timeout"),
			}
			s := service(rapid.IntRange(1, 6).Draw(rt, "nodes"))
			for range rapid.IntRange(1, 40).Draw(rt, "requests") {
				asked := Request{
					Key:        rapid.Uint64Range(0, 9).Draw(rt, "key"),
					Repeatable: rapid.Bool().Draw(rt, "repeatable"),
					Timeout:    rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, "timeout"),
				}
				begun, reached := time.Now(), 0
				var before *Result
				var round []*discovery.Node
				err := b.Do(t.Context(), s, asked, func(try Try) Result {
					if before != nil {
						switch {
						case before.Fate == Failed && !asked.Repeatable, before.Fate == Answered, before.Fate == Blameless, before.Final:
							rt.Fatalf("sent again after %+v", *before)
						case asked.Timeout > 0 && time.Since(begun) >= asked.Timeout:
							rt.Fatalf("sent again after %v", time.Since(begun))
						}
					}
					if slices.Contains(round, try.Node) {
						for _, n := range s.Nodes {
							if !n.Load.Out() && !slices.Contains(round, n) {
								rt.Fatalf("node %s once more, %s was not tried", try.Node.ID, n.ID)
							}
						}
						round = round[:0]
					}
					round = append(round, try.Node)
					before = &Result{Err: errSent, Fate: rapid.SampledFrom([]Fate{Answered, Unreached, Refused, Failed, Failed, Blameless}).Draw(rt, "fate")}
					if before.Fate != Unreached {
						reached++
					}
					if before.Fate == Answered && rapid.Bool().Draw(rt, "well") {
						before.Err = nil
					}
					before.Final = rapid.IntRange(0, 9).Draw(rt, "final") == 0
					before.RetryAfter = time.Duration(rapid.IntRange(0, 2).Draw(rt, "after")) * time.Second
					time.Sleep(time.Duration(rapid.IntRange(0, 900).Draw(rt, "took")) * time.Millisecond)
					return *before
				})
				if reached > b.Retries+1 {
					rt.Fatalf("%d tries reached a node, %d retries are allowed", reached, b.Retries)
				}
				if before == nil || (err == nil) != (before.Err == nil) {
					rt.Fatalf("%+v became %v", before, err)
				}
			}
			out := 0
			for _, n := range s.Nodes {
				if n.Load.Out() {
					out++
				}
			}
			if out > len(s.Nodes)/2 {
				rt.Fatalf("%d of %d nodes are out", out, len(s.Nodes))
			}
		})
	})
}
