package proxy

import (
	"net"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// hopByHop reports whether a field is meant for the next hop alone (RFC 9110
// section 7.6.1) or tells how a message is cut up on its connection, which each
// side does for itself.
func hopByHop(name string) bool {
	switch len(name) {
	case len("TE"):
		return strings.EqualFold(name, "TE")
	case len("Upgrade"):
		return strings.EqualFold(name, "Upgrade")
	case len("Connection"):
		return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Keep-Alive")
	case len("Proxy-Connection"):
		return strings.EqualFold(name, "Proxy-Connection")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	}
	return false
}

// endToEnd appends the fields of h that go on, in their order, to out, which may
// be h[:0]. extra is the name of one more field to leave out.
func endToEnd(out, h httpmsg.Header, extra string) httpmsg.Header {
	named := connectionOptions(h)
	for _, f := range h {
		if hopByHop(f.Name) || len(f.Name) == len(extra) && strings.EqualFold(f.Name, extra) || len(named) > 0 && named[strings.ToLower(f.Name)] {
			continue
		}
		out = append(out, f)
	}
	return out
}

// connectionOptions returns, in lower case, the names that the Connection
// fields list beside the usual ones. It is a set and not a search for each
// field, so that a long list and many fields do not multiply.
func connectionOptions(h httpmsg.Header) map[string]bool {
	var named map[string]bool
	for _, f := range h {
		if len(f.Name) != len("Connection") || !strings.EqualFold(f.Name, "Connection") {
			continue
		}
		for option := range strings.SplitSeq(f.Value, ",") {
			option = strings.ToLower(strings.TrimSpace(option))
			if option == "" || option == "close" || hopByHop(option) {
				continue
			}
			if named == nil {
				named = make(map[string]bool)
			}
			named[option] = true
		}
	}
	return named
}

// token is the sidecar's own field: no node ever sees it.
const token = "Micro-Token"

// outgoing appends to out the header of r as the node gets it.
func outgoing(out httpmsg.Header, r *httpmsg.Request) httpmsg.Header {
	out = endToEnd(out, r.Header, token)
	if proto := offered(r); proto != "" {
		out.Add("Connection", "Upgrade")
		out.Add("Upgrade", proto)
	}
	forwarded(&out, r)
	return out
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
	if r.Host != "" && !h.Has("X-Forwarded-Host") {
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

// offered returns the protocols that a request offers to switch to, or "". An
// offer that comes with a body is passed over, as a server may (RFC 9110
// section 7.8): the body would have to end before the switch.
func offered(r *httpmsg.Request) string {
	if r.Length != 0 || !r.Header.HasToken("Connection", "Upgrade") {
		return ""
	}
	return r.Header.Get("Upgrade")
}

// answered is the header of a 1xx or 101 as the client gets it, in h's memory:
// they have no length.
func answered(h httpmsg.Header) httpmsg.Header { return endToEnd(h[:0], h, "Content-Length") }
