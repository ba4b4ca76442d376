package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/netio"
	"github.com/micro/sidecar/internal/tunnel"
)

// Forwarding is what the forwarder of a request may want beside its answer.
type Forwarding struct {
	// Informational gets the 1xx answers of the node, but 100 and 101: the first
	// is answered by reading the request's body, the second is an answer like
	// any other. It is called from one goroutine, before Forward returns.
	Informational func(status int, h httpmsg.Header)
	// HeadTimeout bounds the time until the answer's head is there, the making of
	// a connection included; 0 means that the context alone does. It is for
	// requests whose body is here already.
	HeadTimeout time.Duration
}

// errSlow ends the wait for an answer's head. It passes for a deadline.
var errSlow error = &slowError{}

type slowError struct{}

func (*slowError) Error() string   { return "did not answer in time" }
func (*slowError) Is(e error) bool { return e == context.DeadlineExceeded }

// Do is [Client.Forward] for callers that want nothing but the answer.
func (c *Client) Do(ctx context.Context, peer discovery.Peer, r *httpmsg.Request) (*httpmsg.Response, error) {
	return c.Forward(ctx, peer, r, &Forwarding{})
}

// Forward sends r to the peer as it is and returns the answer when its head is
// there. Target, method, host and header go out as they came, in order and
// spelling, and nothing is added but what frames the body; r.Header must not
// hold hop-by-hop fields that are not meant for the node. The body is streamed:
// it may be read until the answer's body was closed, and for a moment longer.
// ctx rules until that close, or, after a 101, until Forward returns; its end
// may be noticed a tenth of a second late, its deadline is kept.
//
// The answer is the caller's until its body is closed, by whoever reads it: its
// memory is used again. Errors are *[NodeError]; *[httpmsg.Error] when r cannot be written; or
// the error that reading r.Body gave, wrapped. Content-Length stays in the
// answer's header as the node sent it; an answer to HEAD has it as Length and
// no body.
func (c *Client) Forward(ctx context.Context, peer discovery.Peer, r *httpmsg.Request, f *Forwarding) (*httpmsg.Response, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, peer.Addr, false, err)
	}
	p := c.pool(peer)
	if peer.HTTP2 || peer.TLS {
		if res, done, err := c.forward2(ctx, p, r, f); done {
			return res, err
		}
	}
	mark := markOf(r)
	for age := mark.age(r); ; age = 0 {
		begun := time.Now()
		conn, err := c.connect(ctx, p, age, f.HeadTimeout)
		if err != nil {
			return nil, failed(ctx, peer.Addr, false, err)
		}
		x := conn.begin(ctx, r, f, begun)
		err = x.run()
		if err == nil {
			return &x.response, nil
		}
		_ = conn.Close() // the exchange has failed already
		whole := mark.rewind(x)
		if conn.kept() && x.unanswered && ctx.Err() == nil && whole && (!x.wrote || idempotent(r.Method)) {
			continue // the node closed an idle connection just as we took it
		}
		if problem := x.sendProblem(); problem != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("read the request's body: %w", problem)
		}
		return nil, failed(ctx, peer.Addr, x.wrote || !whole, err)
	}
}

// mark is where a request's body began, when it is in memory.
type mark struct {
	body  *bytes.Reader
	start int64
}

func markOf(r *httpmsg.Request) mark {
	body, inMemory := r.Body.(*bytes.Reader)
	if !inMemory {
		return mark{}
	}
	return mark{body, body.Size() - int64(body.Len())}
}

// age is for how long a connection may have been idle that r is sent on.
func (m mark) age(r *httpmsg.Request) time.Duration {
	if idempotent(r.Method) && (r.Length == 0 || m.body != nil) {
		return idleTimeout // should it break, r can be sent again
	}
	return young
}

// rewind makes the request of an exchange that failed ready to be sent again. It
// reports false when some of its body is gone.
func (m mark) rewind(x *exchange) bool {
	untouched := x.sender.refuse() && !x.bodyRead
	if m.body == nil {
		return untouched
	}
	x.sender.end()
	_, err := m.body.Seek(m.start, io.SeekStart)
	return err == nil
}

// idempotent requests may be carried out twice (RFC 9110 section 9.2.2), as may
// happen when a node closes the connection without an answer (RFC 9112 section
// 9.3.1).
func idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// exchange is one request and its answer on one connection, which it is a part
// of: it is used again by the next one.
type exchange struct {
	ctx     context.Context
	conn    *conn
	request *httpmsg.Request
	forward *Forwarding
	begun   time.Time

	tied    bool        // ctx and the deadline for the head hold the connection
	release func() bool // ends ctx's hold on it; false: it was cut
	headed  bool        // the answer's head is there

	wrote      bool    // some of the request has left, or may have
	bodyRead   bool    // it is in the head's buffer
	unanswered bool    // the connection failed before any byte of an answer
	sender     *sender // sends the body meanwhile; nil when it is all sent

	answer   http1.Response
	body     http1.Body
	response httpmsg.Response
}

// begin makes the connection's exchange a new one.
func (c *conn) begin(ctx context.Context, r *httpmsg.Request, f *Forwarding, now time.Time) *exchange {
	x := &c.x
	header := x.answer.Header[:0]
	clear(header[:min(cap(header), maxKept)]) // the last answer's text is in there
	*x = exchange{ctx: ctx, conn: c, request: r, forward: f, begun: now, release: held}
	if cap(header) <= maxKept {
		x.answer.Header = header
	}
	return x
}

// maxKept is how many fields of memory a connection keeps for the next answer.
const maxKept = 64

func held() bool { return true }

// aLongTimeAgo as a deadline ends reads and writes at once.
var aLongTimeAgo = time.Unix(1, 0)

// untied is how long an exchange may go without heeding its context: most are
// over by then, and have not paid for what they did not need.
const untied = 100 * time.Millisecond

// tie lets the end of the context, and the deadline for the head, end what the
// connection waits for.
func (x *exchange) tie() {
	x.tied = true
	c := x.conn
	c.until = time.Time{}
	var deadline time.Time
	if x.forward.HeadTimeout > 0 && !x.headed {
		deadline = x.begun.Add(x.forward.HeadTimeout)
	}
	_ = c.SetDeadline(deadline) // fails on a closed connection only
	if x.ctx.Done() != nil {
		x.release = context.AfterFunc(x.ctx, func() { _ = c.SetDeadline(aLongTimeAgo) })
	}
}

// run sends the request and reads the answer's head. The caller closes the
// connection when it fails.
func (x *exchange) run() error {
	x.conn.hurry(x.ctx, x.begun)
	err := x.send()
	if err == nil {
		err = x.receive()
	}
	if err == nil {
		return nil
	}
	x.release()
	if x.tied && errors.Is(err, os.ErrDeadlineExceeded) && x.ctx.Err() == nil {
		err, x.unanswered = errSlow, false // the node is there, it may be at work
	}
	return err
}

// hurry sets a deadline for reading, near now, or at the context's. One that is
// near enough is left as it is: setting it costs as much as a small read.
func (c *conn) hurry(ctx context.Context, now time.Time) {
	limit := now.Add(untied)
	deadline, bounded := ctx.Deadline()
	switch left := c.until.Sub(now); {
	case bounded && deadline.Before(limit):
		limit = deadline
	case left > untied/2 && left <= untied:
		return
	}
	c.until = limit
	_ = c.SetReadDeadline(limit) // fails on a closed connection only
}

// source is what a connection's codec reads from: it ties an exchange that
// takes its time.
type source conn

func (s *source) Read(p []byte) (int, error) {
	x := &s.x
	for {
		n, err := s.Conn.Read(p)
		full := errors.Is(err, netio.ErrFull)
		late := !x.tied && errors.Is(err, os.ErrDeadlineExceeded)
		if !full && !late {
			return n, err
		}
		if !x.tied {
			x.tie()
		}
		if full {
			if _, err := s.Write(s.out[s.Sent():]); err != nil {
				return 0, err
			}
		}
	}
}

// sendProblem is what went wrong with reading the request's body, if anything.
func (x *exchange) sendProblem() error {
	if x.sender == nil {
		return nil
	}
	return x.sender.problem()
}

// maxInformational bounds the 1xx answers in front of one answer.
const maxInformational = 64

// receive reads heads until the real answer's.
func (x *exchange) receive() error {
	err := x.conn.in.Wait()
	x.wrote = x.wrote || x.conn.Sent() > 0
	if err != nil {
		x.unanswered = true
		return noAnswer(err)
	}
	if x.answer.Header == nil {
		x.answer.Header = make(httpmsg.Header, 0, 16)
	}
	for range maxInformational {
		head, err := x.conn.in.ReadHead()
		if err != nil {
			return noAnswer(err)
		}
		if err := http1.ParseResponse(head, x.request.Method, &x.answer); err != nil {
			return fmt.Errorf("answered nonsense: %w", err)
		}
		switch status := x.answer.Status; {
		case status == 100:
			x.sender.goAhead()
		case status == 101:
			return x.upgraded()
		case status < 200:
			if f := x.forward.Informational; f != nil {
				f(status, x.answer.Header)
			}
		default:
			x.answered()
			return nil
		}
	}
	return errors.New("answered nothing but 1xx")
}

// noAnswer says what an end of the connection means.
func noAnswer(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("closed the connection without a complete answer")
	}
	return err
}

// answered makes the answer that the caller gets.
func (x *exchange) answered() {
	x.sender.refuse() // a body that waits for a 100 is not wanted
	x.begunAnswer()
	a := &x.answer
	x.body.Reset(x.conn.in, a.Length)
	x.response = httpmsg.Response{Status: a.Status, Reason: a.Reason, Header: a.Header, Length: a.Length, Body: &answerBody{x}, Trailer: x.conn.trailer}
	switch {
	case a.Length < 0:
		x.response.Length = -1
	case x.request.Method == "HEAD" || a.Status == 304:
		// There is no body, and the length is that of the one a GET would have.
		x.response.Length = announced(a.Header)
	case a.Status == 204:
		x.response.Length = 0
	}
}

// begunAnswer ends the wait for the head.
func (x *exchange) begunAnswer() {
	x.headed = true
	if x.tied && x.forward.HeadTimeout > 0 {
		_ = x.conn.SetDeadline(time.Time{}) // fails on a closed connection only
		if x.ctx.Err() != nil {             // and may just have said so
			_ = x.conn.SetDeadline(aLongTimeAgo)
		}
	}
}

// upgraded hands over the connection.
func (x *exchange) upgraded() error {
	if !x.request.Header.HasToken("Connection", "Upgrade") {
		return errors.New("answered 101 to a request that asked for no upgrade")
	}
	if !x.release() {
		return x.ctx.Err()
	}
	x.tied = true // whoever reads or writes from here on waits for as long as it takes
	_ = x.conn.SetDeadline(time.Time{})
	c := x.conn
	x.response = httpmsg.Response{
		Status: 101, Header: x.answer.Header, Body: noBody{},
		Conn: &tunnel.Conn{Conn: c.Conn.Conn, Early: bytes.Clone(c.in.Buffered())},
	}
	c.in, c.out = nil, nil // a tunnel may last: it needs none
	return nil
}
