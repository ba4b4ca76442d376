package server

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// originForm cuts scheme and authority off an absolute-form target (RFC 9112
// section 3.2.2). Other targets stay as they are.
func originForm(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || strings.ContainsAny(scheme, "/?") {
		return target
	}
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// request is r as the data plane sees it. Of HTTP/2 net/http has lost the order
// of the names; they come sorted.
func request(r *http.Request, target string, x *exchange) *httpmsg.Request {
	req := &httpmsg.Request{
		Method:     r.Method,
		Target:     target,
		Host:       r.Host,
		Header:     fields(r.Header),
		Body:       http.NoBody,
		RemoteAddr: r.RemoteAddr,
		TLS:        r.TLS != nil,
		HTTP2:      r.ProtoMajor == 2,
		Loopback:   httpmsg.OnLoopback(r.Context()),
		Account:    x.rec.account,
	}
	if req.HTTP2 {
		req.Header.Del("Host") // it may be there beside ":authority", which is the same then
	}
	if !r.ProtoAtLeast(1, 1) {
		req.Header.Del("Upgrade") // RFC 9110 section 7.8
	}
	switch {
	case x.rec.before != nil && r.Body != nil && r.Body != http.NoBody: // it may be the middleware's
		req.Body, req.Length = r.Body, r.ContentLength
	case x.rec.body != nil:
		req.Body, req.Length = x.rec.body, r.ContentLength
	}
	if as := x.rec.passed; as != nil {
		req = asPassed(req, as, x.rec.strict)
		if x.rec.before != nil {
			req.Header = x.rec.before.edit(req.Header, r.Header)
		}
		return req
	}
	if len(r.Trailer) > 0 {
		req.Header.Add("Trailer", strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ", "))
	}
	if req.Length < 0 {
		req.Trailer = func() httpmsg.Header { return fields(r.Trailer) }
	}
	return req
}

// asPassed gives a request over HTTP/1 the header it came with.
func asPassed(req *httpmsg.Request, as *passed, s *strict) *httpmsg.Request {
	req.Header = as.Header
	if as.Minor == 0 {
		req.Header.Del("Upgrade") // RFC 9110 section 7.8
	}
	if req.Length < 0 {
		req.Trailer = func() httpmsg.Header { return s.trailerOf(as) }
	}
	return req
}

// fields makes our header of net/http's.
func fields(h http.Header) httpmsg.Header {
	out := make(httpmsg.Header, 0, len(h)+4)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			out = append(out, httpmsg.Field{Name: name, Value: value})
		}
	}
	return out
}
