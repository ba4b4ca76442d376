package static

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/picture"
	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

const (
	// Pauses after failures double from the first to the last.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// minTTL and maxTTL bound what a name server says: its clock is not ours,
	// and an answer of years would be a mistake that nobody can take back.
	minTTL = time.Second
	maxTTL = time.Hour
	// emptyTTL is when a name without addresses is asked for again.
	emptyTTL = 5 * time.Second
)

// names makes the picture: what the file says, together with what DNS
// answered last.
type names struct {
	picture  *picture.Picture
	resolver *resolver
	log      *slog.Logger
	tasks    sync.WaitGroup

	mu       sync.Mutex
	services map[string][]*service // by name: the versions
	asked    map[question]*asked
}

// asked is a question that is asked again and again.
type asked struct {
	stop     context.CancelFunc
	answered chan struct{}    // closed after the first answer, a failed one, too
	nodes    []netip.AddrPort // of the last good answer, sorted
	services []string         // whose nodes they are
}

func newNames(p *picture.Picture, r *resolver, log *slog.Logger) *names {
	return &names{picture: p, resolver: r, log: log, asked: map[question]*asked{}}
}

// close ends the questions; the context of use has ended.
func (n *names) close() { n.tasks.Wait() }

// use makes services the picture. What was asked before stays asked, with its
// last answer; what is new is closed when it has been answered.
func (n *names) use(ctx context.Context, services []*service) (answered []<-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services = map[string][]*service{}
	before := n.asked
	n.asked = map[question]*asked{}
	for _, s := range services {
		n.services[s.Name] = append(n.services[s.Name], s)
		for _, l := range s.lookups {
			q := l.question
			if n.asked[q] == nil {
				if n.asked[q] = before[q]; n.asked[q] == nil {
					n.asked[q] = n.ask(ctx, q)
					answered = append(answered, n.asked[q].answered)
				}
				n.asked[q].services = nil
			}
			if a := n.asked[q]; !slices.Contains(a.services, s.Name) {
				a.services = append(a.services, s.Name)
			}
		}
	}
	for q, a := range before {
		if n.asked[q] == nil {
			a.stop()
		}
	}
	all := map[string][]registry.Service{}
	for name := range n.services {
		all[name] = n.build(name)
	}
	n.picture.Replace(all)
	return answered
}

// build makes the versions of a service; n.mu is held.
func (n *names) build(name string) []registry.Service {
	var versions []registry.Service
	for _, s := range n.services[name] {
		v := s.Service
		v.Nodes = slices.Clone(s.Nodes)
		for _, l := range s.lookups {
			for _, at := range n.asked[l.question].nodes {
				v.Nodes = append(v.Nodes, registry.Node{
					ID: l.id + "-" + at.String(), Address: at.Addr().String(), Port: int(at.Port()), Metadata: l.metadata,
				})
			}
		}
		// Two names may have one address.
		slices.SortStableFunc(v.Nodes, func(a, b registry.Node) int { return strings.Compare(a.ID, b.ID) })
		v.Nodes = slices.CompactFunc(v.Nodes, func(a, b registry.Node) bool { return a.ID == b.ID })
		versions = append(versions, v)
	}
	// Versions without nodes do not stand beside others.
	some := slices.DeleteFunc(slices.Clone(versions), func(v registry.Service) bool { return len(v.Nodes) == 0 })
	if len(some) == 0 {
		some = versions[:1]
	}
	registry.Sort(some)
	return some
}

// ask begins to ask a question. n.mu is held.
func (n *names) ask(ctx context.Context, q question) *asked {
	ctx, cancel := context.WithCancel(ctx)
	a := &asked{stop: cancel, answered: make(chan struct{})}
	n.tasks.Go(func() {
		defer cancel()
		var first sync.Once
		pause, failing := firstPause, false
		for {
			nodes, ttl, err := n.resolver.resolve(ctx, q)
			wait := min(max(ttl, minTTL), maxTTL)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				if !failing {
					n.log.Warn("DNS fails; its last good answer stays in use", "name", q.name, "error", err)
				}
				failing, wait = true, pause
				pause = min(2*pause, lastPause)
			default:
				if failing {
					n.log.Info("DNS answers again", "name", q.name)
				}
				if len(nodes) == 0 {
					wait = emptyTTL
				}
				pause, failing = firstPause, false
				n.answer(a, nodes)
			}
			first.Do(func() { close(a.answered) })
			if sleep.For(ctx, wait) != nil {
				return
			}
		}
	})
	return a
}

// answer takes a good answer.
func (n *names) answer(a *asked, nodes []netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(a.nodes, nodes) {
		return
	}
	a.nodes = nodes
	for _, name := range a.services {
		// What is asked still may stand in the file no longer.
		if n.services[name] != nil && n.uses(name, a) {
			n.picture.Set(name, n.build(name))
		}
	}
}

// uses reports whether a service still has this question; n.mu is held.
func (n *names) uses(name string, a *asked) bool {
	return slices.ContainsFunc(n.services[name], func(s *service) bool {
		return slices.ContainsFunc(s.lookups, func(l lookup) bool { return n.asked[l.question] == a })
	})
}
