package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/record"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/transport"
)

// passage is one request on its way to a node, and the answer on its way back.
// It holds what would otherwise be allocated for each request.
type passage struct {
	h       *Handler
	r       *httpmsg.Request
	w       httpmsg.ResponseWriter
	ctx     context.Context
	service *discovery.Service
	out     httpmsg.Request // r as the node gets it
	wish    transport.Forwarding
	node    *discovery.Node
	resp    *httpmsg.Response

	begun time.Time     // when the first node was chosen
	sent  time.Time     // when node was
	took  time.Duration // from begun to the answer; 0 when it says nothing

	headed  func()                                       // called when the answer has begun, or never will; may be nil
	attempt func(*discovery.Node) (time.Duration, error) // try, made once
	hint    func(int, httpmsg.Header)                    // inform, made once
}

var passages = sync.Pool{New: func() any { return newPassage() }}

func newPassage() *passage {
	p := &passage{}
	p.attempt, p.hint = p.try, p.inform
	return p
}

// maxKept is how many fields of memory a passage keeps for the next request.
const maxKept = 64

func (p *passage) begin(h *Handler, r *httpmsg.Request, w httpmsg.ResponseWriter) {
	p.h, p.r, p.w = h, r, w
	p.wish.Informational = p.hint
	header := p.out.Header[:0]
	p.out = *r
	p.out.Header = outgoing(header, r)
	p.out.Trailers = r.Header.HasToken("TE", "trailers")
	if trailer := r.Trailer; trailer != nil { // r may be the next request when it is asked for
		p.out.Trailer = func() httpmsg.Header { return endToEnd(nil, trailer(), token) }
	}
}

// end gives the passage back. Nobody uses it any more.
func (p *passage) end() {
	header := p.out.Header
	clear(header)
	if cap(header) > maxKept {
		header = nil
	}
	*p = passage{out: httpmsg.Request{Header: header[:0]}, attempt: p.attempt, hint: p.hint}
	passages.Put(p)
}

// run sends the request to a node of service and the answer to the client.
func (p *passage) run(ctx context.Context, service *discovery.Service) error {
	p.ctx, p.service = ctx, service
	err := p.h.Balancer.Do(ctx, service, p.h.Balancer.Key(p.r), p.attempt)
	if p.headed != nil {
		p.headed()
	}
	if err != nil {
		return err
	}
	record.Request(service, stats.Proxy, p.resp.Status, nil, p.took)
	p.node.Load.Open.Add(1)
	defer p.node.Load.Open.Add(-1)
	if p.resp.Conn != nil {
		return upgrade(ctx, p.resp, p.w)
	}
	return p.answer()
}

// try sends the request to a node.
func (p *passage) try(n *discovery.Node) (time.Duration, error) {
	took, err := p.send(n)
	status := 0
	if err == nil {
		status = p.resp.Status
		if took > 0 {
			p.took = p.sent.Sub(p.begun) + took
		}
	}
	record.Try(n, stats.Proxy, status, err, took)
	return took, err
}

func (p *passage) send(n *discovery.Node) (took time.Duration, err error) {
	p.node, p.sent = n, time.Now()
	p.r.Account.To(p.service.Name, n.Addr)
	if p.begun.IsZero() {
		p.begun = p.sent
	}
	p.resp, err = p.h.Transport.Forward(p.ctx, n.Peer, &p.out, &p.wish)
	_, uploading := p.out.Body.(*watchedBody)
	switch {
	case err == nil && uploading:
		return 0, refuse(p.r, n.Addr, p.resp) // the client had its share in the time
	case err == nil:
		return time.Since(p.sent), refuse(p.r, n.Addr, p.resp)
	case errors.Is(err, context.DeadlineExceeded):
		return time.Since(p.sent), err // to the node's account
	}
	return 0, p.outOfTime(err)
}

// inform passes a 1xx on; a client that is gone is noticed with the real answer.
func (p *passage) inform(status int, h httpmsg.Header) {
	_ = p.w.Informational(status, answered(h))
}

// refuse closes an answer that cannot be passed on and says why.
func refuse(r *httpmsg.Request, addr string, resp *httpmsg.Response) error {
	var what string
	switch {
	case resp.Conn != nil && offered(r) == "":
		what = "switched protocols without being asked"
		_ = resp.Conn.Close() // nothing more is wanted of it
	case resp.Conn == nil && resp.Status < http.StatusOK:
		what = fmt.Sprintf("answered with status %d, which is none", resp.Status)
		_ = resp.Body.Close()
	default:
		return nil
	}
	return &transport.NodeError{Addr: addr, Sent: true, Err: errors.New(what)}
}
