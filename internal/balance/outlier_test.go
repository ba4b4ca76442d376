package balance

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/internal/discovery"
)

// bench is a service some of whose nodes are bad, in virtual time.
type bench struct {
	*discovery.Service
	b    *Balancer
	bad  map[*discovery.Node]bool
	seen map[*discovery.Node]int
}

func newBench(nodes int, pick Picker) *bench {
	return &bench{service(nodes), &Balancer{Pick: pick}, map[*discovery.Node]bool{}, map[*discovery.Node]int{}}
}

// send sends n requests with different keys, one after the other.
func (b *bench) send(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		_ = b.b.Do(t.Context(), b.Service, Request{Key: discovery.Mix(uint64(i + 1))}, func(try Try) Result {
			b.seen[try.Node]++
			if b.bad[try.Node] {
				return ends(errSent)
			}
			return Result{}
		})
	}
}

func (b *bench) out() (n int) {
	for _, node := range b.Nodes {
		if node.Load.Out() {
			n++
		}
	}
	return n
}

// A node that fails five times in a row is out for ten seconds times n, gets one
// request then, and is back when that succeeds.
func TestBadNodesLeaveTheRotation(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(3, pick)
				bad := b.Nodes[1]
				b.bad[bad] = true
				b.send(t, 300)
				if b.seen[bad] != discovery.MaxFailures || !bad.State().Ejected {
					t.Fatalf("it failed %d times, state %+v", b.seen[bad], bad.State())
				}
				for n := 1; n <= 32; n++ {
					length := min(time.Duration(n)*10*time.Second, 5*time.Minute)
					if left := bad.State().Left; left != length {
						t.Fatalf("ejection %d lasts %v, want %v", n, left, length)
					}
					time.Sleep(length - time.Nanosecond)
					b.send(t, 100)
					if b.seen[bad] != discovery.MaxFailures+n-1 {
						t.Fatalf("it got requests while it was out: %d", b.seen[bad])
					}
					time.Sleep(time.Nanosecond)
					b.send(t, 100)
					if b.seen[bad] != discovery.MaxFailures+n {
						t.Fatalf("it got %d requests to find out about it, want one", b.seen[bad]-discovery.MaxFailures-n+1)
					}
				}
				b.bad[bad] = false
				time.Sleep(5 * time.Minute)
				b.send(t, 300)
				if state := bad.State(); state.Ejected || state.Failures != 0 || b.seen[bad] < discovery.MaxFailures+32+50 {
					t.Errorf("it is well, and got %d; %+v", b.seen[bad], state)
				}
				// What it did well for so long it has made good: the next time is
				// the first once more.
				time.Sleep(10 * time.Minute)
				b.bad[bad] = true
				b.send(t, 300)
				if left := bad.State().Left; left != 10*time.Second {
					t.Errorf("it is out for %v", left)
				}
			})
		})
	}
}

// While one request finds out about a node, no other one goes there.
func TestOneProbeAtATime(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(3, pick)
				bad := b.Nodes[0]
				b.bad[bad] = true
				b.send(t, 300)
				time.Sleep(10 * time.Second)
				before := b.seen[bad]
				_ = b.b.Do(t.Context(), b.Service, Request{Key: 1}, func(try Try) Result {
					if try.Node != bad {
						t.Errorf("%s is asked, not the one that is due", try.Node.ID)
					}
					b.send(t, 100)
					return Result{}
				})
				if b.seen[bad] != before || bad.Load.Out() {
					t.Errorf("it got %d more meanwhile; %+v", b.seen[bad]-before, bad.State())
				}
			})
		})
	}
}

// A request that never says how it went is not waited for without end.
func TestAProbeWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(2, P2C)
		bad := b.Nodes[0]
		b.bad[bad] = true
		b.send(t, 300)
		for range 3 {
			time.Sleep(10 * time.Second)
			asked := false
			_ = b.b.Do(t.Context(), b.Service, Request{}, func(try Try) Result {
				asked = try.Node == bad
				return Result{Err: errSent, Fate: Blameless}
			})
			if !asked {
				t.Error("nobody asks it")
			}
		}
	})
}

// Requests that were on their way when a node was ejected say nothing new.
func TestLateFailuresDoNotProlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(3, P2C)
		for range 20 {
			b.Failed(b.Nodes[0], discovery.Now(), false)
		}
		if state := b.Nodes[0].State(); state.Ejections != 1 || state.Left != 10*time.Second {
			t.Errorf("%+v", state)
		}
	})
}

// Half of the nodes may be out and no more; when all are bad, all are used.
func TestAtMostHalfAreOut(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, test := range []struct{ nodes, bad, out int }{
					{1, 1, 0}, {2, 1, 1}, {3, 1, 1}, {3, 2, 1}, {4, 3, 2}, {5, 4, 2}, {10, 7, 5}, {2, 2, 0}, {3, 3, 0}, {10, 10, 0},
				} {
					b := newBench(test.nodes, pick)
					for _, n := range b.Nodes[:test.bad] {
						b.bad[n] = true
					}
					for range 200 {
						b.send(t, 20*test.nodes)
						if out := b.out(); out > test.nodes/2 {
							t.Fatalf("%+v: %d are out", test, out)
						}
					}
					clear(b.seen)
					b.send(t, 100*test.nodes)
					if out := b.out(); out != test.out {
						t.Errorf("%+v: %d are out", test, out)
					}
					if len(b.seen) != test.nodes-test.out {
						t.Errorf("%+v: %d are used", test, len(b.seen))
					}
				}
			})
		})
	}
}

// When the node that is left begins to fail, those that are out are asked, and
// are back when they answer: two that restart one after the other are no outage.
func TestThoseThatAreOutMayHaveComeBack(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			b := newBench(2, pick)
			b.b.Retries = 1
			for _, down := range []int{0, 1, 0, 1} {
				for range 200 {
					err := b.b.Do(t.Context(), b.Service, Request{Key: 7}, func(try Try) Result {
						if try.Node == b.Nodes[down] {
							return ends(errNotSent)
						}
						return Result{}
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// When nodes leave the registry, those that are out are still half at most.
func TestHalfOfWhatIsLeft(t *testing.T) {
	b := newBench(6, Random)
	for _, n := range b.Nodes[:3] {
		for range discovery.MaxFailures {
			b.Failed(n, discovery.Now(), false)
		}
	}
	if b.out() != 3 {
		t.Fatalf("%d are out", b.out())
	}
	// Two of those that are well leave without the snapshot's being made anew: all
	// pickers find the one that is left.
	few := *b.Service
	few.Nodes, few.Hashes = slices.Clone(few.Nodes[:4]), few.Hashes[:4]
	for name, pick := range pickers {
		for i := range 50 {
			if n := pick(&few, uint64(i), nil); n != few.Nodes[3] {
				t.Errorf("%s picks %v", name, n)
			}
		}
	}
}

// Also while nodes are out a pick allocates nothing.
func TestPicksWithOutliersDoNotAllocate(t *testing.T) {
	b := newBench(10, nil)
	for range discovery.MaxFailures {
		b.Failed(b.Nodes[3], discovery.Now(), false)
	}
	for name, pick := range pickers {
		b.b.Pick = pick
		if n := testing.AllocsPerRun(1000, func() { b.b.first(b.Service, 42, now()) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkPickWithOutliers(b *testing.B) {
	s := service(10)
	for range discovery.MaxFailures {
		s.Failed(s.Nodes[3], discovery.Now(), false)
	}
	for _, name := range Selectors() {
		b.Run(name, func(b *testing.B) {
			balancer := &Balancer{Pick: pickers[name]}
			b.ReportAllocs()
			for b.Loop() {
				balancer.first(s, 42, now())
			}
		})
	}
}
