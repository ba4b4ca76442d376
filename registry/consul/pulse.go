package consul

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// awayTime is how long an agent must have failed to count as away: what
	// was lost on the way for less time is sent again by TCP.
	awayTime = 2 * time.Second
	// spread is the time in which all watches begin anew when it is back.
	spread = time.Second
)

// pulse finds out from the requests to an agent that it was away and is back.
// A blocking query that was under way meanwhile may wait for an answer that
// got lost, a minute and more: nothing tells it from one that nothing happened
// to. The zero value of all but next is ready; it is safe for concurrent use.
type pulse struct {
	next *http.Transport

	mu    sync.Mutex
	since time.Time       // of the failures; zero: it answers
	era   context.Context // ends when the agent is back
	end   context.CancelFunc
}

// RoundTrip implements [http.RoundTripper].
func (p *pulse) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := p.next.RoundTrip(request)
	switch {
	case err == nil:
		p.answered()
	case !errors.Is(err, context.Canceled): // who gave up says nothing about the agent
		p.failed()
	}
	return response, err
}

func (p *pulse) failed() {
	p.next.CloseIdleConnections() // they may be as dead, and cost a call each to find out
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

func (p *pulse) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() && time.Since(p.since) >= awayTime && p.era != nil {
		p.end()
		p.era = nil
	}
	p.since = time.Time{}
}

// now is a context that ends when the agent is back after it was away.
func (p *pulse) now() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.era == nil {
		p.era, p.end = context.WithCancel(context.Background())
	}
	return p.era
}
