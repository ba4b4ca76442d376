package testserver

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Relay is the network before a server: connections to Addr reach it, until a
// test has the network fail. Nothing that happens to it closes a connection but
// [Relay.Reset].
type Relay struct {
	// Addr is where clients connect to.
	Addr string

	t        testing.TB
	server   string
	listener net.Listener
	work     sync.WaitGroup
	done     chan struct{}

	mu      sync.Mutex
	now     network
	changed chan struct{} // closed when now is replaced
	pairs   map[*relayed]bool
	closed  bool
}

// network is how it is at a time.
type network struct {
	lost    [2]bool       // by direction: what is sent vanishes
	latency time.Duration // of each piece that is sent
	pace    int           // bytes a second, 0: any
}

// The directions.
const (
	toServer = 0
	toClient = 1
)

// relayed is a connection and the one to the server that carries it on.
type relayed struct {
	ends [2]net.Conn // to the client, to the server; the latter may be nil
	lost bool        // for ever: the network has forgotten it
}

// NewRelay starts a relay before the server at an address. It ends with the test.
func NewRelay(t testing.TB, server string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{
		Addr: l.Addr().String(), t: t, server: server, listener: l,
		done: make(chan struct{}), changed: make(chan struct{}), pairs: map[*relayed]bool{},
	}
	r.work.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

// Cut has everything vanish from now on, in both directions: what is sent is
// not answered, new connections come to nothing, and nobody is told.
func (r *Relay) Cut() { r.set(network{lost: [2]bool{true, true}}) }

// CutToServer has only what clients send vanish, CutToClient only what the
// server does.
func (r *Relay) CutToServer() { r.set(network{lost: [2]bool{toServer: true}}) }

// CutToClient is described at [Relay.CutToServer].
func (r *Relay) CutToClient() { r.set(network{lost: [2]bool{toClient: true}}) }

// Slow delays what is sent and lets through so many bytes a second, in each
// direction of each connection.
func (r *Relay) Slow(latency time.Duration, pace int) { r.set(network{latency: latency, pace: pace}) }

// Heal has the network as it was. What vanished is sent again and arrives, as
// TCP does it.
func (r *Relay) Heal() { r.set(network{}) }

// Forget is Heal for new connections alone: those that are open stay silent for
// ever, as when a firewall on the way has lost them.
func (r *Relay) Forget() {
	r.mu.Lock()
	for p := range r.pairs {
		p.lost = true
	}
	r.mu.Unlock()
	r.Heal()
}

// Reset breaks all connections with a reset.
func (r *Relay) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pairs {
		p.reset()
	}
}

func (r *Relay) set(n network) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = n
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Relay) close() {
	close(r.done)
	_ = r.listener.Close() // it was open
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.Reset()
	r.work.Wait()
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		p := &relayed{ends: [2]net.Conn{client, nil}}
		r.mu.Lock()
		r.pairs[p] = true
		r.mu.Unlock()
		r.work.Go(func() { r.carry(p) })
	}
}

// carry carries one connection until both sides have ended it.
func (r *Relay) carry(p *relayed) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.pairs, p)
		p.close()
	}()
	if _, ok := r.passes(p, toServer); !ok { // the first packet of it
		return
	}
	server, err := net.Dial("tcp", r.server)
	r.mu.Lock()
	if err == nil {
		p.ends[1] = server
	}
	over := err != nil || r.closed
	if over {
		p.reset() // as a port that nobody listens on
	}
	r.mu.Unlock()
	if over {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { r.pass(p, toClient) })
	r.pass(p, toServer)
	back.Wait()
}

// pass carries one direction of a connection.
func (r *Relay) pass(p *relayed, direction int) {
	from, to := p.ends[direction], p.ends[1-direction]
	buffer := make([]byte, 16<<10)
	for {
		if _, ok := r.passes(p, direction); !ok {
			return
		}
		n, err := from.Read(buffer)
		now, ok := r.passes(p, direction)
		if !ok {
			return
		}
		if !r.send(to, buffer[:n], now) || err != nil {
			if half, ok := to.(*net.TCPConn); ok {
				_ = half.CloseWrite() // it may be closed
			}
			return
		}
	}
}

// send writes at the network's pace.
func (r *Relay) send(to net.Conn, b []byte, now network) bool {
	if !r.pause(now.latency) {
		return false
	}
	for len(b) > 0 {
		n := len(b)
		if now.pace > 0 {
			n = min(n, max(now.pace/10, 1))
		}
		if _, err := to.Write(b[:n]); err != nil {
			return false
		}
		if b = b[n:]; now.pace > 0 && !r.pause(time.Duration(n)*time.Second/time.Duration(now.pace)) {
			return false
		}
	}
	return true
}

// pause reports false when the relay ends meanwhile.
func (r *Relay) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.done:
		return false
	}
}

// passes waits until something gets through in the direction, and returns how
// the network then is; false when the relay ends.
func (r *Relay) passes(p *relayed, direction int) (network, bool) {
	for {
		r.mu.Lock()
		now, changed, lost := r.now, r.changed, p.lost
		r.mu.Unlock()
		if !lost && !now.lost[direction] {
			return now, true
		}
		select {
		case <-changed:
		case <-r.done:
			return network{}, false
		}
	}
}

func (p *relayed) reset() {
	for _, end := range p.ends {
		if tcp, ok := end.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it may be closed
			_ = tcp.Close()      // as above
		}
	}
}

func (p *relayed) close() {
	for _, end := range p.ends {
		if end != nil {
			_ = end.Close() // it may be closed
		}
	}
}
