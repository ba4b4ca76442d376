package balance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func service(n int) *discovery.Service {
	s := &discovery.Service{Name: "svc"}
	for i := range n {
		s.Nodes = append(s.Nodes, &discovery.Node{Node: registry.Node{ID: fmt.Sprint(i)}})
	}
	return s
}

var pickers = map[string]Picker{"random": Random, "p2c": P2C}

func TestEveryNodeIsPicked(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			for size := 1; size <= 5; size++ {
				s := service(size)
				count := map[*discovery.Node]int{}
				for range 1000 * size {
					count[pick(s.Nodes, nil)]++
				}
				for _, n := range s.Nodes {
					if c := count[n]; c < 800 || c > 1200 {
						t.Errorf("node %s of %d: picked %d times of %d", n.ID, size, c, 1000*size)
					}
				}
			}
		})
	}
}

func TestTriedNodesAreNotPicked(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			s := service(4)
			tried := map[*discovery.Node]bool{}
			for range 4 {
				n := pick(s.Nodes, func(n *discovery.Node) bool { return tried[n] })
				if n == nil || tried[n] {
					t.Fatalf("picked %v, tried before: %v", n, tried[n])
				}
				tried[n] = true
			}
			if n := pick(s.Nodes, func(n *discovery.Node) bool { return tried[n] }); n != nil {
				t.Errorf("picked %s, all were tried", n.ID)
			}
			if n := pick(nil, nil); n != nil {
				t.Errorf("picked %v of none", n)
			}
		})
	}
}

func TestP2CAvoidsTheSlowAndTheBusy(t *testing.T) {
	s := service(3)
	for i, n := range s.Nodes {
		observe(n, time.Millisecond)
		if i == 0 {
			observe(n, time.Second)
		}
		if i == 1 {
			n.Load.InFlight.Store(100)
		}
	}
	count := map[string]int{}
	for range 3000 {
		count[P2C(s.Nodes, nil).ID]++
	}
	// Of two choices among three, one is the good one in two cases of three.
	if count["2"] < 1800 || count["0"] > 50 && count["1"] > 1200 {
		t.Errorf("picked %v", count)
	}
}

func TestSlownessFades(t *testing.T) {
	n := service(1).Nodes[0]
	observe(n, time.Second)
	if cost(n) < int64(time.Second) {
		t.Fatal("a fresh measurement counts less than in full")
	}
	n.Load.Measured.Add(-int64(100 * halfLife))
	if c := cost(n); c > int64(time.Millisecond) {
		t.Errorf("long after, the cost is still %v", time.Duration(c))
	}
}

func TestPickersDoNotAllocate(t *testing.T) {
	s := service(10)
	for name, pick := range pickers {
		if n := testing.AllocsPerRun(1000, func() { pick(s.Nodes, nil) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

var errNotSent, errSent = errors.New("not sent"), errors.New("sent")

func TestBalancerTriesAnotherNodeWhenSafe(t *testing.T) {
	for _, c := range []struct {
		name         string
		nodes, again int
		fail         error
		failing      int
		tries        int
		want         error
	}{
		{"good node", 3, 1, nil, 0, 1, nil},
		{"one dead node", 3, 1, errNotSent, 1, 2, nil},
		{"most are dead", 9, 1, errNotSent, 8, 9, nil},
		{"no retries", 5, 0, errNotSent, 5, 1, errNotSent},
		{"all dead", 2, 5, errNotSent, 5, 2, errNotSent},
		{"it may have arrived", 3, 2, errSent, 1, 1, errSent},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &Balancer{Pick: P2C, Retries: c.again, Safe: func(err error) bool { return errors.Is(err, errNotSent) }}
			s := service(c.nodes)
			seen := map[*discovery.Node]bool{}
			err := b.Do(t.Context(), s, func(n *discovery.Node) (time.Duration, error) {
				if seen[n] {
					t.Error("the same node twice")
				}
				seen[n] = true
				if n.Load.InFlight.Load() != 1 {
					t.Error("the request is not counted in flight")
				}
				if len(seen) <= c.failing {
					return 0, c.fail
				}
				return time.Millisecond, nil
			})
			if !errors.Is(err, c.want) || len(seen) != c.tries {
				t.Errorf("%d tries and %v, want %d and %v", len(seen), err, c.tries, c.want)
			}
			for _, n := range s.Nodes {
				if n.Load.InFlight.Load() != 0 {
					t.Errorf("node %s is left with a request in flight", n.ID)
				}
			}
		})
	}
}

func TestDeadNodesAreAvoided(t *testing.T) {
	b := &Balancer{Pick: P2C, Retries: 1, Safe: func(error) bool { return true }}
	s := service(5)
	tries := 0
	for range 200 {
		err := b.Do(t.Context(), s, func(n *discovery.Node) (time.Duration, error) {
			tries++
			if n.ID != "4" {
				return 0, errNotSent
			}
			return time.Millisecond, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// Of two choices among five, four cannot hold the one that lives in three
	// cases of five.
	if tries > 200*4 {
		t.Errorf("200 requests took %d tries", tries)
	}
}

func TestBalancerWithoutNodes(t *testing.T) {
	b := &Balancer{Pick: P2C}
	var refusal *httpmsg.Error
	if err := b.Do(t.Context(), service(0), nil); !errors.As(err, &refusal) || refusal.Status != 503 {
		t.Errorf("got %v", err)
	}
}

func TestBalancerStopsWithTheContext(t *testing.T) {
	b := &Balancer{Pick: P2C, Retries: 5, Safe: func(error) bool { return true }}
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_ = b.Do(ctx, service(5), func(*discovery.Node) (time.Duration, error) { tries++; cancel(); return 0, errNotSent })
	if tries != 1 {
		t.Errorf("%d tries after the end", tries)
	}
}

func BenchmarkP2C(b *testing.B) {
	s := service(10)
	b.ReportAllocs()
	for b.Loop() {
		P2C(s.Nodes, nil)
	}
}
