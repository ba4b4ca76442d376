package transport

import (
	"errors"
	"time"
)

// errLifeless is the failure of requests to a node that is gone without a word.
var errLifeless = errors.New("the node gives no sign of life")

const (
	// checkInterval is how often a connection with requests on it is looked at:
	// one that was silent as long is asked for a sign of life, and closed when
	// there is none until the next look.
	checkInterval = 10 * time.Second
	// quietInterval is how soon a node that has sent nothing but signs of life
	// is asked for another: gRPC servers take more than one in five minutes for
	// an attack.
	quietInterval = 5*time.Minute + 10*time.Second
)

// look notices nodes that are gone without a word.
func (c *h2conn) look() {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.looks++
	frames := c.frames.Load()
	silent := frames == c.framesThen
	c.framesThen = frames
	since := c.since.Load()
	stuck := since != 0 && since < c.looks
	gone := stuck || silent && c.awaited && time.Since(c.pinged) >= c.every/2
	ask := silent && c.reserved > 0 && (c.pinged.IsZero() || time.Since(c.pinged) > quietInterval) && c.mayAsk()
	c.checks.Reset(c.every)
	c.mu.Unlock()
	switch {
	case gone:
		c.close(errLifeless)
	case ask:
		c.ask()
	}
}

// doubt asks for a sign of life after a request that ran out of time while
// nothing came. Until it comes the connection gets no more of them.
func (c *h2conn) doubt(frames uint64) {
	c.mu.Lock()
	ask := c.frames.Load() == frames && c.pinged.IsZero() && c.mayAsk()
	c.mu.Unlock()
	if ask {
		c.ask()
	}
}

// mayAsk notes that a sign of life is about to be asked for; false: one is
// awaited already.
func (c *h2conn) mayAsk() bool {
	if c.awaited || c.err != nil {
		return false
	}
	c.pinged, c.awaited = time.Now(), true
	return true
}

// ask asks for a sign of life.
func (c *h2conn) ask() {
	_ = c.write(func() error { return c.out.WritePing(false, [8]byte{}) }) // a failure closes the connection
}

// alive notes that the sign has come.
func (c *h2conn) alive() {
	c.mu.Lock()
	c.awaited = false
	c.mu.Unlock()
}

// heard notes that the node has sent more than signs of life.
func (c *h2conn) heard() {
	c.mu.Lock()
	c.pinged = time.Time{}
	c.mu.Unlock()
}
