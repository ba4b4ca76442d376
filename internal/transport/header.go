package transport

import (
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// upstreamHeader makes net/http's header of ours. The fields that frame the
// message are left out: its length rules, not what somebody wrote about it.
func upstreamHeader(h httpmsg.Header) http.Header {
	// An absent User-Agent would be filled in; an empty one is not sent.
	out := make(http.Header, len(h)+1)
	out["User-Agent"] = nil
	for _, f := range h {
		switch name := textproto.CanonicalMIMEHeaderKey(f.Name); name {
		case "Content-Length", "Transfer-Encoding", "Trailer", "Host":
		case "User-Agent", "Connection", "Expect", "Upgrade":
			// net/http looks these up by their canonical name.
			out[name] = append(out[name], f.Value)
		default:
			out[f.Name] = append(out[f.Name], f.Value)
		}
	}
	return out
}

// fields makes our header of net/http's, in alphabetical order.
func fields(h http.Header) httpmsg.Header {
	out := make(httpmsg.Header, 0, len(h)+2)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			out = append(out, httpmsg.Field{Name: name, Value: v})
		}
	}
	return out
}

// names lists the field names of h.
func names(h http.Header) string { return strings.Join(slices.Sorted(maps.Keys(h)), ", ") }

// announced returns the trailer fields that the header's Trailer announces,
// without values. Framing fields are no trailers (RFC 9110 section 6.5.1).
func announced(h httpmsg.Header) http.Header {
	out := http.Header{}
	for _, f := range h {
		if !strings.EqualFold(f.Name, "Trailer") {
			continue
		}
		for name := range strings.SplitSeq(f.Value, ",") {
			if name = textproto.TrimString(name); isToken(name) && !frames(name) {
				out[http.CanonicalHeaderKey(name)] = nil
			}
		}
	}
	return out
}

// addFields adds trailer fields that can be written.
func addFields(to http.Header, h httpmsg.Header) {
	for _, f := range h {
		if isToken(f.Name) && isFieldValue(f.Value) && !frames(f.Name) {
			to.Add(f.Name, f.Value)
		}
	}
}

// frames reports whether a field of that name frames a message.
func frames(name string) bool {
	return strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding") ||
		strings.EqualFold(name, "Trailer") || strings.EqualFold(name, "Host")
}

// targetURL makes the URL that net/http writes as target, byte for byte. One
// that begins with two slashes cannot be opaque, net/http would put the scheme
// in front: of such a one, bytes that RFC 3986 does not allow in a path are
// percent-encoded.
func targetURL(addr, target string) *url.URL {
	u := &url.URL{Scheme: "http", Host: addr}
	if !strings.HasPrefix(target, "//") {
		u.Opaque = target
		return u
	}
	path, query, asked := strings.Cut(target, "?")
	u.RawPath, u.RawQuery, u.ForceQuery = path, query, asked
	var err error
	if u.Path, err = url.PathUnescape(path); err != nil {
		u.Path, u.RawPath = path, ""
	}
	return u
}
