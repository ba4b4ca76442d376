package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/balance"
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
	asked   balance.Request
	out     httpmsg.Request // r as the node gets it
	kept    bytes.Reader    // its body, to be sent as often as need be; empty when that is not kept
	wish    transport.Forwarding
	node    *discovery.Node
	begun   int64             // when it was chosen, as discovery.Now has it
	first   int64             // when the first one was
	took    time.Duration     // from first to the answer; 0 when it says nothing
	resp    *httpmsg.Response // of the last try; nil when that gave none

	headed  func()                           // called when the answer has begun, or never will; may be nil
	attempt func(balance.Try) balance.Result // try, made once
	hint    func(int, httpmsg.Header)        // inform, made once
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
	p.out.Header = r.Identify(outgoing(header, r))
	p.out.Trailers = r.Header.HasToken("TE", "trailers")
	if trailer := r.Trailer; trailer != nil { // r may be the next request when it is asked for
		p.out.Trailer = func() httpmsg.Header { return endToEnd(nil, trailer(), token) }
	}
}

// keep reads the body, so that it can be sent again. What the client takes for
// it is its own time.
func (p *passage) keep() error {
	body, err := transport.ReadLimited(p.r.Body, p.r.Length, maxReplay)
	if err != nil {
		return httpmsg.BodyError(err)
	}
	p.kept.Reset(body)
	p.out.Body = &p.kept
	return nil
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
	p.asked.Key = p.h.Balancer.Key(p.r)
	err := p.h.Balancer.Do(ctx, service, p.asked, p.attempt)
	if p.headed != nil {
		p.headed()
	}
	if p.resp == nil {
		return err
	}
	// Also an answer after which the balancer would have tried another node.
	record.Request(service, stats.Proxy, p.resp.Status, nil, p.took)
	p.node.Load.Open.Add(1)
	defer p.node.Load.Open.Add(-1)
	if p.resp.Conn != nil {
		return upgrade(ctx, p.resp, p.w)
	}
	return p.answer()
}

// errUnavailable stands for an answer that says that nobody is there now.
var errUnavailable = errors.New("the node is not available")

// try sends the request to a node.
func (p *passage) try(t balance.Try) balance.Result {
	if p.resp != nil {
		discard(p.resp)
		p.resp = nil
	}
	p.node, p.begun = t.Node, t.Begun
	if p.first == 0 {
		p.first = t.Begun
	}
	p.r.Account.To(p.service.Name, t.Node.Addr)
	if p.kept.Size() > 0 {
		_, _ = p.kept.Seek(0, io.SeekStart) // cannot fail
		p.out.Body = &p.kept
	}
	if p.asked.Timeout > 0 {
		p.wish.HeadTimeout = t.Limit
	}
	resp, err := p.h.Transport.Forward(p.ctx, t.Node.Peer, &p.out, &p.wish)
	if err == nil {
		err = refuse(p.r, t.Node.Addr, resp)
	}
	if err != nil {
		err = p.outOfTime(err)
		record.Try(t.Node, stats.Proxy, 0, err, 0)
		return p.failed(err)
	}
	p.resp = resp
	_, uploading := p.out.Body.(*watchedBody) // then the client had its share in the time
	p.note(resp.Status, uploading)
	grpc := unavailable(resp)
	if fate := balance.Answer(resp.Status); fate != balance.Answered || grpc {
		return balance.Result{
			Err: errUnavailable, Fate: balance.Failed, Final: grpc, // how soon it says so is no praise
			RetryAfter: transport.RetryAfter(resp.Header, time.Now()),
		}
	}
	return balance.Result{Fate: balance.Answered, Timed: !uploading}
}

// note enters an answer in the accounts of the node and of this request.
func (p *passage) note(status int, uploading bool) {
	var took time.Duration
	p.took = 0
	if !uploading {
		now := discovery.Now()
		took, p.took = time.Duration(now-p.begun), time.Duration(now-p.first)
	}
	record.Try(p.node, stats.Proxy, status, nil, took)
}

// failed is the result of a try without an answer.
func (p *passage) failed(err error) balance.Result {
	result := balance.Judge(p.ctx, err)
	result.Timed = result.Timed && !p.asked.Shortened
	if errors.Is(context.Cause(p.ctx), errTimeout) {
		result.Fate = balance.Failed // it took nothing more of an upload, or did not answer it
	}
	return result
}

// unavailable reports whether an answer is nothing but the status of a gRPC call
// that says what 503 does. It is the client's to try again: it alone knows what
// its method does.
func unavailable(resp *httpmsg.Response) bool {
	const status = "14"
	return resp.Length == 0 && transport.GRPCMessage(resp.Header) && resp.Header.Get("grpc-status") == status
}

// discardable is how much is read of an answer that nobody wants, for the sake
// of its connection.
const discardable = 16 << 10

// discard ends an answer that nobody gets.
func discard(resp *httpmsg.Response) {
	if b, ok := resp.Body.(interface{ Here() bool }); ok {
		var buf [1 << 10]byte
		for read := 0; read < discardable && b.Here(); {
			n, err := resp.Body.Read(buf[:])
			if read += n; err != nil {
				break
			}
		}
	}
	_ = resp.Body.Close() // how its end goes changes nothing
	if resp.Conn != nil {
		_ = resp.Conn.Close()
	}
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
