package balance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

var errNotSent, errSent = errors.New("not sent"), errors.New("sent")

func notSent(err error) bool { return errors.Is(err, errNotSent) }

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
		{"more are dead than may be tried", 40, 1, errNotSent, 40, maxTries, errNotSent},
		{"it may have arrived", 3, 2, errSent, 1, 1, errSent},
	} {
		for name, pick := range pickers {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				b := &Balancer{Pick: pick, Retries: c.again, Safe: notSent}
				s := service(c.nodes)
				seen := map[*discovery.Node]bool{}
				err := b.Do(t.Context(), s, 42, func(n *discovery.Node) (time.Duration, error) {
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
}

func TestDeadNodesAreAvoided(t *testing.T) {
	for _, name := range []string{"p2c", "leastrequest", "hash"} {
		t.Run(name, func(t *testing.T) {
			b := &Balancer{Pick: pickers[name], Retries: 1, Safe: notSent}
			s := service(5)
			tries := 0
			for i := range 200 {
				err := b.Do(t.Context(), s, discovery.Mix(uint64(i+1)), func(n *discovery.Node) (time.Duration, error) {
					tries++
					if n != s.Nodes[4] {
						return 0, errNotSent
					}
					return time.Second, nil // slow it is, but it lives
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			// Two choices among five do not hold the one that lives in three
			// cases of five, and then two or more tries fail; the others know
			// better after each dead node was tried once.
			most := map[string]int{"p2c": 200 * 3, "leastrequest": 204, "hash": 204}[name]
			if tries > most {
				t.Errorf("200 requests took %d tries", tries)
			}
		})
	}
}

func TestAClientThatLeavesIsNoFaultOfTheNode(t *testing.T) {
	b := &Balancer{Pick: P2C, Retries: 1, Safe: notSent}
	s := service(2)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_ = b.Do(ctx, s, 0, func(*discovery.Node) (time.Duration, error) { tries++; cancel(); return 0, errNotSent })
	if tries != 1 {
		t.Errorf("%d tries after the end", tries)
	}
	for _, n := range s.Nodes {
		if n.Load.Failed.Load() != 0 {
			t.Errorf("node %s passes for one that cannot be reached", n.ID)
		}
	}
}

func TestAnAnswerEndsTheDoubt(t *testing.T) {
	b := &Balancer{Pick: P2C, Retries: 1, Safe: notSent}
	s := service(1)
	try := func(took time.Duration, err error) int64 {
		_ = b.Do(t.Context(), s, 0, func(*discovery.Node) (time.Duration, error) { return took, err })
		return s.Nodes[0].Load.Failed.Load()
	}
	if try(0, errNotSent) == 0 || try(0, errSent) == 0 {
		t.Error("nothing is known of a node that did not answer")
	}
	if try(0, nil) != 0 {
		t.Error("a node that answered is in doubt")
	}
}

func TestBalancerWithoutNodes(t *testing.T) {
	for name, pick := range pickers {
		b := &Balancer{Pick: pick}
		var refusal *httpmsg.Error
		if err := b.Do(t.Context(), service(0), 42, nil); !errors.As(err, &refusal) || refusal.Status != 503 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
