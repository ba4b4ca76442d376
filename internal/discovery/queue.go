package discovery

import (
	"sync"

	"github.com/micro/sidecar/registry"
)

// maxQueue bounds the hints that wait for a slow receiver; beyond it they are
// replaced by one about everything.
const maxQueue = 4096

// hint says that a service may have changed.
type hint struct {
	name     string             // "" = all of them
	services []registry.Service // its state, when the engine told it; nil = read it
	seen     chan struct{}      // closed when it was dealt with; may be nil
}

func (h hint) done() {
	if h.seen != nil {
		close(h.seen)
	}
}

// queue holds hints in their order. It is safe for concurrent use.
type queue struct {
	wake chan struct{} // holds a token while there is something to take

	mu     sync.Mutex
	hints  []hint
	closed bool
}

// put appends h; it never blocks. A hint that only repeats one that waits is
// left out.
func (q *queue) put(h hint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		h.done()
		return
	}
	if last := len(q.hints) - 1; last >= 0 && h.seen == nil && h.services == nil {
		if l := q.hints[last]; l.name == h.name && l.services == nil {
			return
		}
	}
	if len(q.hints) >= maxQueue {
		for _, old := range q.hints {
			old.done()
		}
		q.hints = []hint{{}}
		h.done()
	} else {
		q.hints = append(q.hints, h)
	}
	q.signal()
}

// putBack returns hints that could not be dealt with to the front.
func (q *queue) putBack(hints []hint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hints = append(append([]hint(nil), hints...), q.hints...)
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns what waits.
func (q *queue) take() []hint {
	q.mu.Lock()
	defer q.mu.Unlock()
	hints := q.hints
	q.hints = nil
	return hints
}

// close lets go of everybody who waits.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, h := range q.hints {
		h.done()
	}
	q.hints = nil
}
