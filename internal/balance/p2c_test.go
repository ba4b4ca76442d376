package balance

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/internal/discovery"
)

func TestP2CAvoidsTheSlowAndTheBusy(t *testing.T) {
	s := service(3)
	for i, n := range s.Nodes {
		observe(n, time.Millisecond, now())
		switch i {
		case 0:
			observe(n, time.Second, now())
		case 1:
			n.Load.InFlight.Store(100)
		}
	}
	count := map[string]int{}
	for range 3000 {
		count[P2C(s, 0, nil).ID[len("svc-"):]]++
	}
	// Of two choices among three, the good one is there in two cases of three;
	// in the third, a second's wait for one is worse than 1 ms for each of 101.
	if count["0002"] < 1800 || count["0000"] != 0 {
		t.Errorf("picked %v", count)
	}
}

// TestSimilarLatenciesAreNoise: what differs by less than a factor of two
// shares alike, and one request more that waits outweighs it.
func TestSimilarLatenciesAreNoise(t *testing.T) {
	s := service(2)
	observe(s.Nodes[0], 10*time.Millisecond, now())
	observe(s.Nodes[1], 18*time.Millisecond, now())
	counts := make([]int, 2)
	for range 2000 {
		counts[slices.Index(s.Nodes, P2C(s, 0, nil))]++
	}
	chiSquare(t, "alike", counts)
	s.Nodes[0].Load.InFlight.Store(11)
	s.Nodes[1].Load.InFlight.Store(10)
	for range 100 {
		if P2C(s, 0, nil) != s.Nodes[1] {
			t.Fatal("the busier one was picked")
		}
	}
}

// TestANewNodeIsTriedOnce: until its first answer is there, no second request
// goes to it.
func TestANewNodeIsTriedOnce(t *testing.T) {
	s := service(2)
	known, fresh := s.Nodes[0], s.Nodes[1]
	observe(known, 500*time.Millisecond, now())
	known.Load.InFlight.Store(50)
	if P2C(s, 0, nil) != fresh {
		t.Fatal("the new node is not tried")
	}
	fresh.Load.InFlight.Add(1)
	for range 100 {
		if P2C(s, 0, nil) != known {
			t.Fatal("a second request goes to a node that has not answered the first")
		}
	}
}

// TestAnUnreachableNodeIsWorseThanAnySlowOne, also with only two nodes.
func TestAnUnreachableNodeIsWorseThanAnySlowOne(t *testing.T) {
	s := service(2)
	slow, dead := s.Nodes[0], s.Nodes[1]
	observe(slow, time.Minute, now())
	slow.Load.InFlight.Store(1000)
	observe(dead, time.Millisecond, now())
	dead.Load.Failed.Store(now())
	for range 100 {
		if P2C(s, 0, nil) != slow {
			t.Fatal("the dead one was picked")
		}
	}
	dead.Load.Failed.Add(-int64(pause))
	if P2C(s, 0, nil) != dead {
		t.Error("the dead one gets no other chance")
	}
}

func TestPeaksCountAtOnceAndFade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := service(1).Nodes[0]
		latency := func() time.Duration { return time.Duration(n.Load.Latency.Load()) }
		observe(n, time.Millisecond, now())
		observe(n, 201*time.Millisecond, now())
		if latency() != 101*time.Millisecond {
			t.Errorf("after a peak the average is %v", latency())
		}
		for range 100 { // good answers in no time prove nothing yet
			observe(n, time.Millisecond, now())
		}
		if latency() != 101*time.Millisecond {
			t.Errorf("the peak is forgotten at once: %v", latency())
		}
		time.Sleep(halfLife)
		observe(n, time.Millisecond, now())
		if latency() < 50*time.Millisecond || latency() > 52*time.Millisecond {
			t.Errorf("after one half-life the average is %v", latency())
		}
		time.Sleep(20 * halfLife)
		observe(n, time.Millisecond, now())
		if latency() > 1010*time.Microsecond {
			t.Errorf("long after, the average is %v", latency())
		}
	})
}

func TestFade(t *testing.T) {
	const v = 1 << 40
	for age, want := range map[time.Duration]float64{
		-time.Hour: 1, 0: 1, halfLife / 2: .75, halfLife: .5, 3 * halfLife / 2: .375, 10 * halfLife: 1. / 1024, 1000 * time.Hour: 0,
	} {
		if got := float64(fade(v, int64(age))) / v; got < want-.001 || got > want+.001 {
			t.Errorf("after %v there is %.4f left, want %.4f", age, got, want)
		}
	}
}

// fleet is a service whose nodes work on one request at a time, in virtual time.
type fleet struct {
	*discovery.Service
	work []func() time.Duration // of each node, for one request
	busy []chan bool            // holds a token while the node works
}

// run sends rate requests a second for a while, at random times, and returns
// how long each took, sorted.
func (f *fleet) run(pick Picker, rate float64, length time.Duration) []time.Duration {
	b := &Balancer{Pick: pick, Retries: 1}
	var mu sync.Mutex
	var took []time.Duration
	var requests sync.WaitGroup
	random := rand.New(rand.NewPCG(1, 2))
	for end := time.Now().Add(length); time.Now().Before(end); {
		time.Sleep(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		requests.Go(func() {
			begun := time.Now()
			_ = b.Do(context.Background(), f.Service, Request{}, func(try Try) Result {
				i := slices.Index(f.Nodes, try.Node)
				f.busy[i] <- true
				time.Sleep(f.work[i]())
				<-f.busy[i]
				return ends(nil)
			})
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begun))
		})
	}
	requests.Wait()
	slices.Sort(took)
	return took
}

// newFleet has ten nodes that answer in 2 ms on average, the first one slower.
func newFleet(slower float64) *fleet {
	f := &fleet{Service: service(10), busy: make([]chan bool, 10)}
	for i := range f.Nodes {
		f.busy[i] = make(chan bool, 1)
		random, mean := rand.New(rand.NewPCG(3, uint64(i))), 2*float64(time.Millisecond)
		if i == 0 {
			mean *= slower
		}
		f.work = append(f.work, func() time.Duration { return time.Duration(random.ExpFloat64() * mean) })
	}
	return f
}

// TestP2CKeepsTheTailShort simulates a fleet at 60% of what it can do, in which
// one node is ten times as slow as the others: the 99th percentile must stay
// near that of a fleet without it, where a choice by turns queues up without
// end at the slow one.
func TestP2CKeepsTheTailShort(t *testing.T) {
	p99 := func(pick Picker, slower float64) (p99 time.Duration) {
		synctest.Test(t, func(*testing.T) {
			all := newFleet(slower).run(pick, 3000, 5*time.Second)
			p99 = all[len(all)*99/100]
		})
		return p99
	}
	even, p2c, turns := p99(P2C, 1), p99(P2C, 10), p99(RoundRobin, 10)
	t.Logf("p99: %v without a slow node, %v with one, %v by turns", even, p2c, turns)
	if p2c > 2*even || p2c > turns/10 {
		t.Errorf("p99 is %v with a slow node, %v without, %v by turns", p2c, even, turns)
	}
}

// TestANodeRecovers stops a node for 200 ms, as a collector of garbage may: a
// few seconds later it has its share again.
func TestANodeRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(1)
		var share int
		work := f.work[0]
		f.work[0] = func() time.Duration { share++; return work() }
		f.busy[0] <- true
		time.AfterFunc(200*time.Millisecond, func() { <-f.busy[0] })
		f.run(P2C, 2000, 10*time.Second)
		share = 0
		all := f.run(P2C, 2000, 2*time.Second)
		if want := len(all) / 10; share < want/2 || share > want*2 {
			t.Errorf("10s after the pause the node answered %d of %d requests", share, len(all))
		}
	})
}
