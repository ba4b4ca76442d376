package balance

import (
	"context"
	"errors"
	"testing"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
)

var errNotSent, errSent = errors.New("not sent"), errors.New("sent")

// ends is the result of a try that ended so.
func ends(err error) Result {
	switch {
	case err == nil:
		return Result{Timed: true}
	case errors.Is(err, errNotSent):
		return Result{Err: err, Fate: Unreached}
	}
	return Result{Err: err, Fate: Failed}
}

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
		{"all dead", 2, 1, errNotSent, 5, 3, errNotSent},
		{"more are dead than may be tried", 40, 1, errNotSent, 40, maxTries + 1, errNotSent},
		{"it may have arrived", 3, 2, errSent, 1, 1, errSent},
	} {
		for name, pick := range pickers {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				b := &Balancer{Pick: pick, Retries: c.again}
				s := service(c.nodes)
				seen, tries := map[*discovery.Node]bool{}, 0
				err := b.Do(t.Context(), s, Request{Key: 42}, func(try Try) Result {
					n := try.Node
					if seen[n] && len(seen) < min(c.nodes, maxTries) {
						t.Error("the same node twice, before the others")
					}
					seen[n] = true
					if n.Load.InFlight.Load() != 1 {
						t.Error("the request is not counted in flight")
					}
					if tries++; tries <= c.failing {
						return ends(c.fail)
					}
					return ends(nil)
				})
				if !errors.Is(err, c.want) || tries != c.tries {
					t.Errorf("%d tries and %v, want %d and %v", tries, err, c.tries, c.want)
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
			b := &Balancer{Pick: pickers[name], Retries: 1}
			s := service(5)
			tries := 0
			for i := range 200 {
				err := b.Do(t.Context(), s, Request{Key: discovery.Mix(uint64(i + 1))}, func(try Try) Result {
					tries++
					if try.Node != s.Nodes[4] {
						return ends(errNotSent)
					}
					return ends(nil)
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
	b := &Balancer{Pick: P2C, Retries: 1}
	s := service(2)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_ = b.Do(ctx, s, Request{}, func(Try) Result {
		tries++
		cancel()
		return Judge(ctx, &transport.NodeError{Err: ctx.Err()})
	})
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
	b := &Balancer{Pick: P2C, Retries: 1}
	s := service(1)
	try := func(err error) int64 {
		_ = b.Do(t.Context(), s, Request{}, func(Try) Result { return ends(err) })
		return s.Nodes[0].Load.Failed.Load()
	}
	if try(errNotSent) == 0 || try(errSent) == 0 {
		t.Error("nothing is known of a node that did not answer")
	}
	if try(nil) != 0 {
		t.Error("a node that answered is in doubt")
	}
}

func TestBalancerWithoutNodes(t *testing.T) {
	for name, pick := range pickers {
		b := &Balancer{Pick: pick}
		var refusal *httpmsg.Error
		if err := b.Do(t.Context(), service(0), Request{Key: 42}, nil); !errors.As(err, &refusal) || refusal.Status != 503 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
