package transport

import (
	"strings"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
)

// check refuses what cannot be written as an HTTP/1.1 head without becoming
// another message (RFC 9112 section 11.1).
func check(r *httpmsg.Request) error {
	if !http1.IsToken(r.Method) {
		return httpmsg.Errorf(400, "method %q is no HTTP token", r.Method)
	}
	if !http1.IsTarget(r.Target) {
		return httpmsg.Errorf(400, "request target %q is empty or holds spaces or control characters", r.Target)
	}
	if !http1.IsValue(r.Host) {
		return httpmsg.Errorf(400, "host %q holds control characters", r.Host)
	}
	for _, f := range r.Header {
		if !http1.IsToken(f.Name) {
			return httpmsg.Errorf(400, "header name %q is no HTTP token", f.Name)
		}
		if !http1.IsValue(f.Value) {
			return httpmsg.Errorf(400, "header %s holds control characters", f.Name)
		}
	}
	return nil
}

// frames reports whether a field of that name frames a message.
func frames(name string) bool {
	return strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding") ||
		strings.EqualFold(name, "Trailer") || strings.EqualFold(name, "Host")
}
