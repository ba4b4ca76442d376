package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"

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

// Do sends r to addr ("host:port") as it is and returns the answer when its
// head is there. Target, method, host, header values and their repetition go
// out as they came, and nothing is added; r.Header must not hold hop-by-hop
// fields that are not meant for the node. The body is streamed: it is read
// until Do has returned and the answer's body was closed. ctx rules until that
// close, or, after a 101, until Do returns.
//
// Errors are *[NodeError]; *[httpmsg.Error] when r cannot be written; or the
// error that reading r.Body gave, wrapped. Content-Length stays in the answer's
// header as the node sent it; an answer to HEAD has it as Length and no body.
func (c *Client) Do(ctx context.Context, addr string, r *httpmsg.Request) (*httpmsg.Response, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	var log sentLog
	req, body := outgoing(withTrace(ctx, &log), addr, r)
	res, err := c.upstream.RoundTrip(req)
	if err != nil {
		if err := body.failure(); err != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("read the request's body: %w", err)
		}
		return nil, failed(ctx, addr, log.sent() || body.begun(), err)
	}
	return incoming(ctx, addr, res)
}

// withTrace makes the upstream note connections and hand on 1xx answers.
func withTrace(ctx context.Context, log *sentLog) context.Context {
	trace := &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { log.got(info.Conn) },
	}
	if f, ok := ctx.Value(informationalKey{}).(func(int, httpmsg.Header)); ok {
		trace.Got1xxResponse = func(status int, h textproto.MIMEHeader) error {
			if status != http.StatusContinue {
				f(status, fields(http.Header(h)))
			}
			return nil
		}
	}
	return httptrace.WithClientTrace(ctx, trace)
}

// outgoing makes the upstream's request of ours.
func outgoing(ctx context.Context, addr string, r *httpmsg.Request) (*http.Request, *requestBody) {
	req := (&http.Request{
		Method:        r.Method,
		URL:           targetURL(addr, r.Target),
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Host:          r.Host,
		Header:        upstreamHeader(r.Header),
		ContentLength: r.Length,
	}).WithContext(ctx)
	if r.Length == 0 {
		req.Body = http.NoBody
		return req, nil
	}
	if b, ok := r.Body.(*bytes.Reader); ok && r.Length > 0 {
		// What is in memory can be sent again when a kept connection turns
		// out to be dead before a byte was written on it.
		req.GetBody = func() (io.ReadCloser, error) { again := *b; return io.NopCloser(&again), nil }
		req.Body, _ = req.GetBody() // cannot fail
		return req, nil
	}
	body := &requestBody{reader: r.Body}
	req.Body = body
	if r.Length < 0 {
		// Said outright, so that net/http does not wait for the first byte of
		// a GET's body to find out whether there is one.
		req.TransferEncoding = []string{"chunked"}
		if r.Trailer != nil {
			req.Trailer = announced(r.Header)
			body.atEnd = func() { addFields(req.Trailer, r.Trailer()) }
		}
	}
	return req, body
}

// incoming makes our answer of the upstream's.
func incoming(ctx context.Context, addr string, res *http.Response) (*httpmsg.Response, error) {
	answer := &httpmsg.Response{Status: res.StatusCode, Header: fields(res.Header), Length: res.ContentLength}
	if res.StatusCode == http.StatusSwitchingProtocols {
		conn, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			return nil, errors.Join(nonsense(addr, "switched protocols without a connection"), res.Body.Close())
		}
		answer.Conn, answer.Body, answer.Length = conn, http.NoBody, 0
		return answer, nil
	}
	if len(res.Trailer) > 0 {
		answer.Header.Add("Trailer", names(res.Trailer))
	}
	answer.Trailer = func() httpmsg.Header { return fields(res.Trailer) }
	answer.Body = &responseBody{ctx: ctx, addr: addr, ReadCloser: res.Body}
	return answer, nil
}
