package redis

import (
	"time"
)

// prolong notes that the member has the turn for so long from start on, less
// a fifth: whoever has the next one shall find our requests ended. m.mu is held.
func (m *member) prolong(start time.Time, lease time.Duration) {
	m.lease = lease
	if until := start.Add(lease - lease/5); until.After(m.until) {
		m.until = until
		m.expiry.Reset(time.Until(until))
	}
}

// expire is called when the turn may be over.
func (m *member) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
}

// look finds out whether the turn is over by our clock: then it is, whatever the
// server says later. m.mu is held.
func (m *member) look() {
	if !m.until.IsZero() && !time.Now().Before(m.until) {
		m.lose()
	}
}

// lose ends the turn, if we have it, and what is held with it. m.mu is held.
func (m *member) lose() {
	if m.until.IsZero() {
		return
	}
	m.until, m.uncertain = time.Time{}, true
	m.turns++
	for _, held := range m.held {
		held.Lose()
	}
	clear(m.held)
	m.bytes = 0
	m.ready.Lose()
	m.wake()
}
