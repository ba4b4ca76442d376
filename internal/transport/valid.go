package transport

import (
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// check refuses what cannot be written as an HTTP/1.1 head without becoming
// another message (RFC 9112 section 11.1).
func check(r *httpmsg.Request) error {
	if !isToken(r.Method) {
		return httpmsg.Errorf(400, "method %q is no HTTP token", r.Method)
	}
	if r.Target == "" || strings.ContainsFunc(r.Target, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return httpmsg.Errorf(400, "request target %q is empty or holds spaces or control characters", r.Target)
	}
	for _, f := range r.Header {
		if !isToken(f.Name) {
			return httpmsg.Errorf(400, "header name %q is no HTTP token", f.Name)
		}
		if !isFieldValue(f.Value) {
			return httpmsg.Errorf(400, "header %s holds control characters", f.Name)
		}
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s can be a field value (RFC 9110 section 5.5).
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
