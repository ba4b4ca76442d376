package balance

import (
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Idempotent reports whether a request with this method may be carried out
// twice (RFC 9110 section 9.2.2). Names of methods are told by their case.
func Idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// Declared reports whether a request's header says that it may be carried out
// twice: by "Micro-Idempotent: true", or by the one Idempotency-Key with which
// its service knows it again. Both go on to the node.
func Declared(h httpmsg.Header) bool {
	key, keys := "", 0
	for i := range h {
		switch f := &h[i]; len(f.Name) {
		case len("Micro-Idempotent"):
			if strings.EqualFold(f.Name, "Micro-Idempotent") && strings.EqualFold(strings.TrimSpace(f.Value), "true") {
				return true
			}
		case len("Idempotency-Key"):
			if strings.EqualFold(f.Name, "Idempotency-Key") {
				key = f.Value
				keys++
			}
		}
	}
	return keys == 1 && isKey(key)
}

// maxKey is the longest key in bytes.
const maxKey = 255

// isKey reports whether a value of Idempotency-Key names something: a string of
// structured fields (RFC 8941 section 3.3.3), as the IETF's draft has it, or, as
// most clients send it, the bare key. Several keys in a list are none.
func isKey(value string) bool {
	value = strings.Trim(value, " \t")
	bare := strings.TrimPrefix(value, `"`)
	if quoted := len(bare) < len(value); quoted {
		text, ok := unquote(bare)
		return ok && text > 0 && text <= maxKey
	}
	for _, c := range []byte(value) {
		if c <= ' ' || c > '~' || c == ',' || c == '"' {
			return false
		}
	}
	return value != "" && len(value) <= maxKey
}

// unquote returns the length of a string whose first quote is off, without its
// escapes; ok is false when it does not end with the second one.
func unquote(s string) (length int, ok bool) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return length, i == len(s)-1
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return 0, false
			}
		case c < ' ' || c > '~':
			return 0, false
		}
		length++
	}
	return 0, false
}
