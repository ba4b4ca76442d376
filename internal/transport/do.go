package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
)

type informationalKey struct{}

// WithInformational returns a context under which [Client.Do] hands on the 1xx
// answers of the node, but 100 and 101: the first is answered by reading the
// request's body, the second is an answer like any other. f is called from one
// goroutine, before Do returns.
func WithInformational(ctx context.Context, f func(status int, h httpmsg.Header)) context.Context {
	return context.WithValue(ctx, informationalKey{}, f)
}

// Do sends r to the peer as it is and returns the answer when its
// head is there. Target, method, host and header go out as they came, in order
// and spelling, and nothing is added but what frames the body; r.Header must
// not hold hop-by-hop fields that are not meant for the node. The body is
// streamed: it may be read until the answer's body was closed, and for a
// moment longer. ctx rules until that close, or, after a 101, until Do returns.
//
// Errors are *[NodeError]; *[httpmsg.Error] when r cannot be written; or the
// error that reading r.Body gave, wrapped. Content-Length stays in the answer's
// header as the node sent it; an answer to HEAD has it as Length and no body.
func (c *Client) Do(ctx context.Context, peer discovery.Peer, r *httpmsg.Request) (*httpmsg.Response, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	p := c.pool(peer)
	again := rewind(r)
	for fresh := false; ; fresh = true {
		conn, err := c.connect(ctx, p, fresh)
		if err != nil {
			return nil, failed(ctx, peer.Addr, false, err)
		}
		x := &exchange{ctx: ctx, conn: conn, request: r}
		err = x.run()
		if err == nil {
			return &x.response, nil
		}
		_ = conn.Close() // the exchange has failed already
		whole := again(x)
		if conn.used && x.unanswered && ctx.Err() == nil && whole && (!x.wrote || idempotent(r.Method)) {
			continue // the node closed an idle connection just as we took it
		}
		if problem := x.sendProblem(); problem != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("read the request's body: %w", problem)
		}
		return nil, failed(ctx, peer.Addr, x.wrote || !whole, err)
	}
}

// rewind returns a function that makes a request ready to be sent again after
// an exchange that failed. It reports false when some of its body is gone.
func rewind(r *httpmsg.Request) func(*exchange) bool {
	body, inMemory := r.Body.(*bytes.Reader)
	var start int64
	if inMemory {
		start = body.Size() - int64(body.Len())
	}
	return func(x *exchange) bool {
		untouched := x.sender.refuse() && !x.bodyRead
		if !inMemory {
			return untouched
		}
		x.sender.end()
		_, err := body.Seek(start, io.SeekStart)
		return err == nil
	}
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

// exchange is one request and its answer on one connection.
type exchange struct {
	ctx     context.Context
	conn    *conn
	request *httpmsg.Request
	release func() bool // ends ctx's hold on the connection; false: it was cut

	wrote      bool    // some of the request has left, or may have
	bodyRead   bool    // it is in the head's buffer
	unanswered bool    // it failed before any byte of an answer
	sender     *sender // sends the body meanwhile; nil when it is all sent

	answer   http1.Response
	body     http1.Body
	response httpmsg.Response
}

// aLongTimeAgo as a deadline ends reads and writes at once.
var aLongTimeAgo = time.Unix(1, 0)

// run sends the request and reads the answer's head. The caller closes the
// connection when it fails.
func (x *exchange) run() error {
	x.release = func() bool { return true }
	if x.ctx.Done() != nil {
		conn := x.conn // x lets go of it when the answer's body is closed
		x.release = context.AfterFunc(x.ctx, func() { _ = conn.SetDeadline(aLongTimeAgo) })
	}
	err := x.send()
	if err == nil {
		err = x.receive()
	}
	if err != nil {
		x.release()
	}
	return err
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
	if err := x.conn.in.Wait(); err != nil {
		x.unanswered = true
		return noAnswer(err)
	}
	x.answer.Header = make(httpmsg.Header, 0, 16)
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
			if f, ok := x.ctx.Value(informationalKey{}).(func(int, httpmsg.Header)); ok {
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
	a := &x.answer
	x.body.Reset(x.conn.in, a.Length)
	x.response = httpmsg.Response{Status: a.Status, Reason: a.Reason, Header: a.Header, Length: a.Length, Body: (*answerBody)(x), Trailer: x.body.Trailer}
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

// upgraded hands over the connection.
func (x *exchange) upgraded() error {
	if !x.request.Header.HasToken("Connection", "Upgrade") {
		return errors.New("answered 101 to a request that asked for no upgrade")
	}
	if !x.release() {
		return x.ctx.Err()
	}
	x.response = httpmsg.Response{Status: 101, Header: x.answer.Header, Body: noBody{}, Conn: x.conn}
	return nil
}

// noBody is an empty body.
type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }

// answerBody is the body of the exchange's answer; its errors name the node.
type answerBody exchange

// Read reads a piece of the body as it comes.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed(b.ctx, b.conn.pool.peer.Addr, true, err)
	}
	return n, err
}

// Here reports whether a read returns at once.
func (b *answerBody) Here() bool { return b.body.Ready() }

// Close ends the exchange. The connection is kept when both messages are
// complete and nothing is left on it.
func (b *answerBody) Close() error {
	if b.conn == nil {
		return nil
	}
	c := b.conn
	b.conn = nil
	free := b.release()
	if free && b.body.Ended() && !b.answer.Close && b.sender.finished() && len(c.in.Buffered()) == 0 {
		c.pool.put(c)
		return nil
	}
	return c.Close()
}
