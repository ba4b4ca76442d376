package nats

import "time"

// Members ask for bytes within their budgets, but each may have one message that
// is larger. A message for hundreds of queues would come to all of them at once,
// over one connection, and a server ends a connection to which more is under way
// than its max_pending. So the broker's members take turns to ask for such.

const (
	// maxLarge is how many ask at a time.
	maxLarge = 2
	// largeExpires is how soon the request is given up when another member was
	// quicker, and the next one's turn comes.
	largeExpires   = 2 * time.Second
	largeHeartbeat = largeExpires / 4
)

// ticket is whether a member may ask for a message whatever its size.
type ticket int

const (
	noTicket ticket = iota
	waitingForTicket
	hasTicket
)

// takeTicket reports whether the member may ask; if not it is woken when it
// may. m.mu is held.
func (m *member) takeTicket() bool {
	if m.pull.ticket == noTicket {
		m.pull.ticket = waitingForTicket
		m.worker.Go(m.awaitTicket)
	}
	return m.pull.ticket == hasTicket
}

func (m *member) awaitTicket() {
	got := false
	select {
	case m.broker.large <- struct{}{}:
		got = true
	case <-m.ended.Done():
	}
	m.mu.Lock()
	m.pull.ticket = noTicket
	if got {
		m.pull.ticket = hasTicket
	}
	if m.ended.Err() != nil || m.pull.sub == nil { // or another has the turn meanwhile
		m.giveTicket()
	}
	m.mu.Unlock()
	m.wake()
}

// giveTicket lets another ask. m.mu is held.
func (m *member) giveTicket() {
	if m.pull.ticket == hasTicket {
		m.pull.ticket = noTicket
		<-m.broker.large
	}
}
