package transport

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/micro/sidecar/internal/discovery"
)

// peers maps a peer to its pool. Reading takes no lock and allocates nothing; a
// change, which is rare, copies the map. The zero value is empty.
type peers struct {
	now atomic.Pointer[map[discovery.Peer]*pool]
	mu  sync.Mutex // held while changing
}

// all is the map as it is now; it does not change.
func (p *peers) all() map[discovery.Peer]*pool {
	if m := p.now.Load(); m != nil {
		return *m
	}
	return nil
}

func (p *peers) get(peer discovery.Peer) *pool { return p.all()[peer] }

// add adds one, or returns the one that is there.
func (p *peers) add(one *pool) (_ *pool, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.get(one.peer); old != nil {
		return old, true
	}
	next := maps.Clone(p.all())
	if next == nil {
		next = map[discovery.Peer]*pool{}
	}
	next[one.peer] = one
	p.now.Store(&next)
	return one, false
}

// remove takes one out, if it is still there.
func (p *peers) remove(one *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.get(one.peer) != one {
		return
	}
	next := maps.Clone(p.all())
	delete(next, one.peer)
	p.now.Store(&next)
}
