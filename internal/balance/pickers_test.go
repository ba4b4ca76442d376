package balance

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/micro/sidecar/internal/discovery"
)

func sqrt(x float64) float64 { return math.Sqrt(x) }

// TestRoundRobinIsEven lets nodes come and go between picks: among the picks of
// any nodes that are there all the time, no two may differ by more than one, in
// any window.
func TestRoundRobinIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := service(rapid.IntRange(1, 8).Draw(t, "nodes"))
		there := make([]bool, len(all.Nodes)) // now
		stays := make([]bool, len(all.Nodes)) // since the window began
		picked := make([]int, len(all.Nodes))
		begin := func() {
			copy(stays, there)
			clear(picked)
		}
		now := func() *discovery.Service {
			var nodes []*discovery.Node
			for i, n := range all.Nodes {
				if there[i] {
					nodes = append(nodes, n)
				}
			}
			s := discovery.NewService("svc", nodes)
			s.Account = all.Account
			return s
		}
		there[0] = true
		begin()
		t.Repeat(map[string]func(*rapid.T){
			"window": func(*rapid.T) { begin() },
			"change": func(t *rapid.T) {
				i := rapid.IntRange(0, len(there)-1).Draw(t, "node")
				there[i] = !there[i]
				stays[i] = false
			},
			"pick": func(t *rapid.T) {
				s := now()
				for range rapid.IntRange(1, 5).Draw(t, "times") {
					if n := RoundRobin(s, 0, nil); n != nil {
						picked[slices.Index(all.Nodes, n)]++
					} else if len(s.Nodes) > 0 {
						t.Fatal("nothing picked")
					}
				}
			},
			"": func(t *rapid.T) {
				least, most := math.MaxInt, 0
				for i, c := range picked {
					if stays[i] {
						least, most = min(least, c), max(most, c)
					}
				}
				if most > least+1 && least != math.MaxInt {
					t.Fatalf("picked %v times, of which those stay: %v", picked, stays)
				}
			},
		})
	})
}

func TestRoundRobinIsEvenUnderConcurrency(t *testing.T) {
	s := service(7)
	var current atomic.Pointer[discovery.Service]
	current.Store(s)
	const workers, each = 8, 5000
	counts := make([]map[*discovery.Node]int, workers)
	stop := make(chan struct{})
	var changes, picks sync.WaitGroup
	changes.Go(func() { // node 3 comes and goes
		for {
			select {
			case <-stop:
				return
			default:
				current.Store(without(s, 3))
				current.Store(s)
			}
		}
	})
	for w := range workers {
		counts[w] = map[*discovery.Node]int{}
		picks.Go(func() {
			for range each {
				counts[w][RoundRobin(current.Load(), 0, nil)]++
			}
		})
	}
	picks.Wait()
	close(stop)
	changes.Wait()
	least, most := math.MaxInt, 0
	for i, n := range s.Nodes {
		if i == 3 {
			continue
		}
		total := 0
		for _, c := range counts {
			total += c[n]
		}
		least, most = min(least, total), max(most, total)
	}
	if most > least+1 {
		t.Errorf("picked from %d to %d times", least, most)
	}
}

func TestARetryTakesATurn(t *testing.T) {
	s := service(4)
	dead := s.Nodes[1]
	count := map[string]int{}
	for range 300 {
		n := RoundRobin(s, 0, nil)
		if n == dead {
			n = RoundRobin(s, 0, []*discovery.Node{dead})
		}
		count[n.ID]++
	}
	for _, n := range s.Nodes {
		if n != dead && count[n.ID] != 100 {
			t.Errorf("the living nodes answered %v requests", count)
		}
	}
}

func TestLeastRequestIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := service(rapid.IntRange(1, window).Draw(t, "nodes"))
		fewest := int64(math.MaxInt64)
		for _, n := range s.Nodes {
			n.Load.InFlight.Store(rapid.Int64Range(0, 3).Draw(t, "in flight"))
			n.Load.Open.Store(rapid.Int64Range(0, 3).Draw(t, "open"))
			fewest = min(fewest, n.Load.InFlight.Load()+n.Load.Open.Load())
		}
		for range 10 {
			if n := LeastRequest(s, 0, nil); n.Load.InFlight.Load()+n.Load.Open.Load() != fewest {
				t.Fatalf("picked one with %d and %d, the fewest are %d", n.Load.InFlight.Load(), n.Load.Open.Load(), fewest)
			}
		}
	})
}

// TestLeastRequestSpreadsStreams opens requests that do not end: no node may
// have two more than another.
func TestLeastRequestSpreadsStreams(t *testing.T) {
	s := service(10)
	for i := range 1000 {
		LeastRequest(s, 0, nil).Load.Open.Add(1)
		for _, n := range s.Nodes {
			if open := n.Load.Open.Load(); open < int64(i/10) || open > int64(i/10+1) {
				t.Fatalf("after %d streams a node has %d", i+1, open)
			}
		}
	}
}

func TestLeastRequestSharesAmongTheIdle(t *testing.T) {
	for _, size := range []int{10, 300} {
		s := service(size)
		var idle []*discovery.Node
		for i, n := range s.Nodes { // gaps of different widths between the idle ones
			if bits := i % 10; bits == 0 || bits == 1 || bits == 7 {
				idle = append(idle, n)
			} else {
				n.Load.Open.Store(5)
			}
		}
		counts := make([]int, len(idle))
		for range 1000 * len(idle) {
			counts[slices.Index(idle, LeastRequest(s, 0, nil))]++
		}
		chiSquare(t, fmt.Sprint(size, " nodes"), counts)
	}
}

// TestHashIsConsistent takes a node away: only the keys it had may move, each
// to its next node, and they spread over all that stay.
func TestHashIsConsistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := service(rapid.IntRange(2, 40).Draw(t, "nodes"))
		gone := rapid.IntRange(0, len(s.Nodes)-1).Draw(t, "gone")
		after := without(s, gone)
		first := rapid.Uint64().Draw(t, "key")
		moved, keys := 0, 200*len(s.Nodes)
		for i := range keys {
			key := max(discovery.Mix(first+uint64(i)), 1)
			was, is := Hash(s, key, nil), Hash(after, key, nil)
			if was == s.Nodes[gone] {
				moved++
				was = Hash(s, key, []*discovery.Node{was})
			}
			if is != was {
				t.Fatalf("key %x moved from %s to %s", key, was.ID, is.ID)
			}
		}
		// 200 keys are expected; six standard deviations are allowed.
		if moved < 200-6*15 || moved > 200+6*15 {
			t.Fatalf("%d of %d keys moved", moved, keys)
		}
	})
}

// TestHashKeepsItsOrder tries one node after the other, as a request does that
// fails on each: with one more node, the order of the others stays.
func TestHashKeepsItsOrder(t *testing.T) {
	order := func(s *discovery.Service, key uint64) (ids []string) {
		var tried []*discovery.Node
		for n := Hash(s, key, nil); n != nil; n = Hash(s, key, tried) {
			tried, ids = append(tried, n), append(ids, n.ID)
		}
		return ids
	}
	s := service(10)
	for i := range 100 {
		key, gone := discovery.Mix(uint64(i+1)), i%10
		want := slices.DeleteFunc(order(s, key), func(id string) bool { return id == s.Nodes[gone].ID })
		if got := order(without(s, gone), key); !slices.Equal(got, want) {
			t.Fatalf("order %v, want %v", got, want)
		}
	}
}

// TestHashPassesOverTheUnreachable: while a node cannot be reached its keys go
// to the next in order at once; when none can, to the first after all.
func TestHashPassesOverTheUnreachable(t *testing.T) {
	s := service(20)
	const key = 42
	first := Hash(s, key, nil)
	second := Hash(s, key, []*discovery.Node{first})
	first.Load.Failed.Store(now())
	if n := Hash(s, key, nil); n != second {
		t.Errorf("picked %s, the next in order is %s", n.ID, second.ID)
	}
	first.Load.Failed.Add(-int64(pause))
	if n := Hash(s, key, nil); n != first {
		t.Errorf("picked %s, %s may be tried again", n.ID, first.ID)
	}
	first.Load.InFlight.Store(1)
	if n := Hash(s, key, nil); n != second {
		t.Errorf("picked %s while another request tries %s", n.ID, first.ID)
	}
	for _, n := range s.Nodes {
		n.Load.Failed.Store(now())
	}
	if n := Hash(s, key, nil); n != first {
		t.Errorf("of nodes that are all away picked %s, not %s", n.ID, first.ID)
	}
}
