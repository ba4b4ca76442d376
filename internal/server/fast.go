package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/netio"
)

// fast is the way in for the data plane over HTTP/1.1: one goroutine a
// connection reads a request, has it answered and writes the answer. The first
// request that is for one of the sidecar's own paths, or that is unusual,
// hands the connection to net/http for the rest of its life. Both ways lead to
// the same handlers.
type fast struct {
	entrance *entrance
	slow     *handover
	base     context.Context
	room     *room

	mu      sync.Mutex
	conns   map[*fastConn]bool
	closing bool
	running sync.WaitGroup // connections served here
}

// accept serves the connections of l until it is closed. One that there is no
// room for waits, and those behind it in the system's backlog.
func (f *fast) accept(l net.Listener) error {
	loopback := onLoopback(l)
	for {
		conn, err := l.Accept()
		if err != nil {
			if temporary(err) { // out of file descriptors, say
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return err
		}
		if !f.room.enter() {
			_ = conn.Close() // nothing was asked on it
			continue         // l is closed, too
		}
		f.serve(conn, loopback)
	}
}

func temporary(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Temporary() //nolint:staticcheck // Accept's errors have no better sign, as in net/http
}

// serve begins to serve a connection; loopback as in [httpmsg.Request].
func (f *fast) serve(conn net.Conn, loopback bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing {
		_ = conn.Close() // nothing was asked on it
		f.room.leave()
		return
	}
	c := newFastConn(f, conn, loopback)
	f.conns[c] = true
	f.running.Go(c.run)
}

// drain closes idle connections, and tells the others to close after the
// answer under way.
func (f *fast) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closing {
		f.room.close()
	}
	f.closing = true
	for c := range f.conns {
		c.last.Store(true)
		if c.state.CompareAndSwap(idle, closed) {
			go c.conn.Close() // nothing was asked on it; with TLS it may wait to say so
		}
	}
}

// cut closes everything.
func (f *fast) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.cancel()
		if c.bare.Load() {
			reset(c.conn)
		} else {
			_ = wire(c.conn).Close() // whoever uses it finds out
		}
	}
}

// The states of a connection.
const (
	idle   int32 = iota // between requests, or reading a head
	active              // answering
	closed              // by drain
)

// fastConn is a connection of a client.
type fastConn struct {
	f      *fast
	conn   net.Conn
	io     *netio.Conn // conn, for reading and writing
	remote string
	ctx    context.Context // of all its requests; ends when the client goes away
	cancel context.CancelFunc
	state  atomic.Int32
	last   atomic.Bool // close after the answer under way
	bare   atomic.Bool // the end of the connection is the answer's (HTTP/1.0)
	until  time.Time   // the read deadline that is set; the answering goroutine's alone

	in    *http1.Reader
	head  http1.Request
	req   httpmsg.Request // what the handlers see of head
	out   writer
	gone  watch
	taken bool // handed over: not ours to close

	secure   bool // over TLS
	loopback bool // as in httpmsg.Request
	observed observation
}

func newFastConn(f *fast, conn net.Conn, loopback bool) *fastConn {
	c := &fastConn{f: f, conn: conn, io: netio.New(conn), remote: conn.RemoteAddr().String(), loopback: loopback}
	c.in = http1.NewReader(c.io)
	c.ctx, c.cancel = context.WithCancel(f.base)
	c.out.c = c
	c.gone.c = c
	return c
}

func (c *fastConn) run() {
	defer func() {
		c.cancel()
		c.f.mu.Lock()
		delete(c.f.conns, c)
		c.f.mu.Unlock()
		if !c.taken {
			_ = c.conn.Close() // all that was to be said is said
			c.f.room.leave()
		}
	}()
	if !c.handshake() {
		return
	}
	for c.next() {
	}
}

// deadline sets the read deadline to about d from now. One that is near enough
// is left as it is: setting it costs as much as reading a small head.
func (c *fastConn) deadline(d time.Duration) bool {
	now := time.Now()
	if left := c.until.Sub(now); left > d/2 && left <= d {
		return true
	}
	c.until = now.Add(d)
	return c.conn.SetReadDeadline(c.until) == nil
}

// noDeadline lets reads take forever.
func (c *fastConn) noDeadline() {
	c.until = time.Time{}
	_ = c.conn.SetReadDeadline(time.Time{}) // fails on a closed connection only
}

// next answers one request and reports whether there may be another.
func (c *fastConn) next() bool {
	c.state.Store(idle)
	if c.last.Load() || !c.deadline(idleTimeout) || c.in.Wait() != nil {
		return false
	}
	if !c.in.Complete() && !c.deadline(headTimeout) {
		return false
	}
	text, err := c.in.ReadHead()
	if !c.state.CompareAndSwap(idle, active) {
		return false
	}
	switch {
	case err == nil && strings.HasPrefix(text, "PRI * HTTP/2") && !c.secure: // else it is negotiated (RFC 9113 section 3.2)
		return c.handOver(text)
	case err == nil:
		err = http1.ParseRequest(text, &c.head)
	}
	if err != nil {
		c.refuse(err)
		return false
	}
	routes := *c.f.entrance.routes.Load()
	if c.unusual(routes) {
		return c.handOver(text)
	}
	return c.exchange(routes)
}

// unusual requests are net/http's, and with middleware all of them.
func (c *fastConn) unusual(routes Routes) bool {
	h := &c.head
	if c.f.entrance.chain != nil || h.Continue || h.Target[0] != '/' || h.Method == http.MethodConnect {
		return true
	}
	path, _, _ := strings.Cut(h.Target, "?")
	return routes.Own(path) != nil
}

// handOver gives the connection to net/http, with what was read of it.
func (c *fastConn) handOver(head string) bool {
	c.noDeadline()
	read := append([]byte(head), c.in.Buffered()...)
	if strings.HasPrefix(head, "PRI * HTTP/2") {
		c.taken = c.f.slow.putHTTP2(c.conn, read, nil, c.loopback)
		return false
	}
	c.bare.Store(c.head.Minor == 0) // also for a cut that still finds it here
	c.taken = c.f.slow.put(c.conn, read, c.head.Minor == 0, c.loopback)
	return false
}

// refuse answers a head that could not be read, if there is anybody to answer.
func (c *fastConn) refuse(err error) {
	var nonsense *http1.Error
	status := http.StatusBadRequest
	switch {
	case errors.Is(err, http1.ErrHeadTooLarge):
		status = http.StatusRequestHeaderFieldsTooLarge
	case !errors.As(err, &nonsense):
		return // the connection ended
	}
	c.head = http1.Request{Head: http1.Head{Minor: 1}}
	c.out.reset(nil)
	c.out.close = true
	routes := *c.f.entrance.routes.Load()
	if routes.Refuse(nil, &c.out, httpmsg.Errorf(status, "the request cannot be read: %v", err)) == nil && c.out.finish() == nil {
		c.lingerAfter()
	}
	c.f.entrance.count(status)
}

// lingerAfter reads on for a moment: closing with bytes unread would take the
// answer away from the client (RFC 9112 section 9.6).
func (c *fastConn) lingerAfter() {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		c.discard()
	}
}

func (c *fastConn) discard() {
	var b [4 << 10]byte
	if c.conn.SetReadDeadline(time.Now().Add(drainTime/4)) != nil {
		return
	}
	for n := 0; n < drainLimit; {
		m, err := c.io.Read(b[:])
		if err != nil {
			return
		}
		n += m
	}
}

// exchange has a request answered.
func (c *fastConn) exchange(routes Routes) bool {
	e := c.f.entrance
	e.requests.Add(1)
	h := &c.head
	body := c.body()
	req := &c.req
	*req = httpmsg.Request{
		Method: h.Method, Target: h.Target, Host: h.Host, Header: h.Header,
		Body: http.NoBody, Length: h.Length, RemoteAddr: c.remote, TLS: c.secure, Loopback: c.loopback,
	}
	if body != nil {
		req.Body, req.Trailer = body, body.b.Trailer
	}
	if h.Minor == 0 {
		req.Header.Del("Upgrade") // RFC 9110 section 7.8
	}
	if e.observe != nil {
		req.Account = c.observed.begin()
	}
	c.out.reset(body)
	c.gone.begin(body)
	err := c.serve(routes, req)
	c.gone.end()
	e.count(c.out.status)
	if c.out.upgraded {
		e.upgraded.Add(-1)
		c.tell()
		return false
	}
	e.requests.Add(-1)
	if err == nil {
		err = c.out.finish()
	}
	c.tell()
	if err != nil {
		if h.Minor == 0 {
			reset(c.conn)
		}
		return false
	}
	return c.settle(body)
}

// body returns the request's body, nil when it has none.
func (c *fastConn) body() *fastBody {
	if c.head.Length == 0 {
		return nil
	}
	b := &fastBody{c: c}
	if b.b.Reset(c.in, c.head.Length); int64(b.b.Here()) != c.head.Length {
		c.noDeadline()
	}
	return b
}

// serve calls the handler; a panic is logged, and answered with 500 when
// nothing was written.
func (c *fastConn) serve(routes Routes, r *httpmsg.Request) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		err = httpmsg.ErrAborted
		if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares the same way
			return
		}
		c.f.entrance.log.Error("panic while answering a request", "method", r.Method, "path", r.Path(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		if c.out.status == 0 {
			err = routes.Refuse(r, &c.out, httpmsg.Errorf(http.StatusInternalServerError, "internal error"))
		}
	}()
	return routes.Serve(c.ctx, r, &c.out)
}

// settle prepares the connection for the next request. What is left of the
// body is read for a while, or the connection closed.
func (c *fastConn) settle(body *fastBody) bool {
	if !body.finish() {
		c.lingerAfter()
		return false
	}
	return !c.out.close && !c.last.Load()
}
