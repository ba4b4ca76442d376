package transport

import (
	"strings"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
)

// appendMetadata appends the fields of a client's request that a node may see
// as metadata.
func appendMetadata(h, from httpmsg.Header) httpmsg.Header {
	listed := from.Has("Connection")
	for _, f := range from {
		if isOurs(f.Name) || listed && from.HasToken("Connection", f.Name) || !http1.IsToken(f.Name) || !http1.IsValue(f.Value) {
			continue
		}
		h = append(h, f)
	}
	return h
}

// isOurs reports whether a client's field of that name stays behind: it belongs
// to the connection or to the body as the client sent it, is the sidecar's own,
// or would steer the RPC form.
func isOurs(name string) bool {
	var room [longest]byte
	lower := room[:0]
	for i := 0; i < len(name) && i < longest; i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower = append(lower, c)
	}
	switch s := string(lower); {
	case strings.HasPrefix(s, "content-"), strings.HasPrefix(s, "proxy-"), strings.HasPrefix(s, "if-"):
		return true
	case len(name) > longest:
		return false
	case strings.HasPrefix(s, "micro-"):
		return isControl(s[len("micro-"):])
	case s == "x-micro-from-service":
		return true
	case strings.HasPrefix(s, "x-micro-"):
		return isControl(s[len("x-micro-"):])
	default:
		return isConnection(s)
	}
}

// longest is the length of the longest whole name that is looked for.
const longest = 32

// isConnection knows the fields of one connection (RFC 9110 section 7.6.1) and
// those that are about the message as it travels.
func isConnection(lower string) bool {
	switch lower {
	case "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
		"host", "accept", "accept-encoding", "range", "expect", "timeout":
		return true
	}
	return false
}

// isControl knows what go-micro and the sidecar say behind "Micro-" and
// "X-Micro-": no client says it for them.
func isControl(lower string) bool {
	switch lower {
	case "service", "method", "endpoint", "id", "error", "protocol", "stream", "topic", "target", "token":
		return true
	}
	return false
}
