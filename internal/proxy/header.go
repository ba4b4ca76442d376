package proxy

import (
	"net"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// hopByHop are the fields that are meant for the next hop alone (RFC 9110
// section 7.6.1) and the ones that frame a message on its connection, which
// each side does for itself.
func hopByHop(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade", "content-length":
		return true
	}
	return false
}

// endToEnd returns the fields of h that go on, in their order. extra is the
// name of one more field to leave out.
func endToEnd(h httpmsg.Header, extra string) httpmsg.Header {
	out := make(httpmsg.Header, 0, len(h)+4)
	for _, f := range h {
		if hopByHop(f.Name) || strings.EqualFold(f.Name, extra) || h.HasToken("Connection", f.Name) {
			continue
		}
		out = append(out, f)
	}
	return out
}

// outgoing is the request as the node gets it.
func outgoing(r *httpmsg.Request) *httpmsg.Request {
	out := *r
	out.Header = endToEnd(r.Header, "Micro-Token")
	if proto := upgrade(r.Header); proto != "" {
		out.Header.Add("Connection", "Upgrade")
		out.Header.Add("Upgrade", proto)
	}
	forwarded(&out.Header, r)
	return &out
}

// forwarded appends the client to X-Forwarded-For, and tells the host and the
// protocol it used when nobody did before.
func forwarded(h *httpmsg.Header, r *httpmsg.Request) {
	if client, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		client, _, _ = strings.Cut(client, "%") // a zone means nothing elsewhere
		if last := lastIndex(*h, "X-Forwarded-For"); last >= 0 && (*h)[last].Value != "" {
			(*h)[last].Value += ", " + client
		} else {
			h.Add("X-Forwarded-For", client)
		}
	}
	if !h.Has("X-Forwarded-Host") {
		h.Add("X-Forwarded-Host", r.Host)
	}
	if !h.Has("X-Forwarded-Proto") {
		proto := "http"
		if r.TLS {
			proto = "https"
		}
		h.Add("X-Forwarded-Proto", proto)
	}
}

func lastIndex(h httpmsg.Header, name string) int {
	for i := len(h) - 1; i >= 0; i-- {
		if strings.EqualFold(h[i].Name, name) {
			return i
		}
	}
	return -1
}

// upgrade returns the protocols that a message offers to switch to, or "".
func upgrade(h httpmsg.Header) string {
	if !h.HasToken("Connection", "Upgrade") {
		return ""
	}
	return h.Get("Upgrade")
}

// answered is the header of an answer as the client gets it.
func answered(h httpmsg.Header) httpmsg.Header { return endToEnd(h, "") }
