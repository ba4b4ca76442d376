package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/micro/sidecar/internal/httpmsg"
)

// HTTP/2 to nodes (RFC 9113). Frames and header compression are those of
// golang.org/x/net/http2; what goes into them is ours, because the clients of
// that package and of net/http add, split, sort and drop header fields, send no
// trailers that were not announced, and do not tell whether a node has seen a
// request that failed. The parts: a pool of connections a peer (http2pool.go),
// a connection (http2conn.go, http2write.go, http2alive.go), and a stream, which is one
// exchange (http2stream.go, http2send.go).

// errUnprocessed is wrapped by the failures of streams that the node has said
// not to have acted upon (RFC 9113 section 8.7).
var errUnprocessed = errors.New("the node did not process the request")

// errConnection is wrapped by the failures of whole connections.
var errConnection = errors.New("the connection broke")

// attempts is how often a request is sent to a node whose connections end before
// it is processed.
const attempts = 3

// forward2 is Forward over HTTP/2. done is false when the node turned out to speak
// HTTP/1.1; nothing was sent then.
func (c *Client) forward2(ctx context.Context, p *pool, r *httpmsg.Request, f *Forwarding) (_ *httpmsg.Response, done bool, _ error) {
	addr := p.peer.Addr
	if p.peer.TLS && r.Header.HasToken("Connection", "Upgrade") {
		return nil, false, nil // for which HTTP/1.1 is asked for
	}
	if problem := fits(r); problem != nil {
		return nil, true, problem
	}
	again := rewind2(r)
	for attempt := 1; ; attempt++ {
		conn, err := c.stream(ctx, p, f.HeadTimeout)
		if errors.Is(err, errHTTP1) {
			return nil, false, nil
		}
		if err != nil {
			return nil, true, failed(ctx, addr, false, err)
		}
		used := conn.used.Swap(true)
		s := newStream(ctx, conn, r)
		if err = s.exchange(f); err == nil {
			return s.answer(), true, nil
		}
		s.abandon()
		whole := again(s)
		unsent := !s.wrote || errors.Is(err, errUnprocessed)
		// A stream that the node refuses is for the caller to send again, who knows
		// of other nodes and how often it may; here, what met a connection's end.
		refused := errors.As(err, new(*ResetError))
		if whole && (unsent && !refused || attempt == 1 && used && lost(err, r)) && ctx.Err() == nil && attempt < attempts {
			continue
		}
		return nil, true, s.failure(!unsent || !whole, err)
	}
}

// failure makes the error of a stream that did not come off.
func (s *h2stream) failure(sent bool, err error) error {
	if problem := s.problem(); problem != nil && s.ctx.Err() == nil {
		return fmt.Errorf("read the request's body: %w", problem)
	}
	return failed(s.ctx, s.conn.addr, sent, err)
}

// lost reports whether a request may be sent again on another connection, though
// the node may have it: the connection may have broken just as it was used.
func lost(err error, r *httpmsg.Request) bool {
	return errors.Is(err, errConnection) && idempotent(r.Method)
}

// fits refuses what HTTP/2 has no form for.
func fits(r *httpmsg.Request) error {
	switch {
	case r.Header.HasToken("Connection", "Upgrade"):
		return httpmsg.Errorf(http.StatusNotImplemented, "the node speaks HTTP/2, which cannot switch to %s", r.Header.Get("Upgrade"))
	case r.Method == http.MethodConnect:
		return httpmsg.Errorf(http.StatusNotImplemented, "CONNECT is not passed on to nodes that speak HTTP/2")
	}
	return nil
}

// rewind2 is rewind for streams.
func rewind2(r *httpmsg.Request) func(*h2stream) bool {
	mark := markOf(r)
	return func(s *h2stream) bool {
		untouched := s.sender.refuse()
		body, inMemory := r.Body.(*bytes.Reader)
		if !inMemory {
			all, complete := s.sender.all()
			if complete {
				r.Body = bytes.NewReader(all)
			}
			return complete || untouched
		}
		s.sender.end()
		start := int64(0) // of a body that was put there by send, or above
		if body == mark.body {
			start = mark.start
		}
		_, err := body.Seek(start, io.SeekStart)
		return err == nil
	}
}
