package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Guard keeps browsers from being used against the sidecar. Two attacks are
// meant: a page of another origin that calls it (RFC 6454), and a page whose
// host name was pointed at this machine (DNS rebinding). Programs send no
// Origin and are not concerned.
type Guard struct {
	// Origins may call from a browser, like "https://shop.example"; "*" means any,
	// without what the browser would add by itself (cookies, client certificates).
	Origins []string
	// Hosts are values of Host that a listener on loopback takes beside the names
	// of loopback. On other listeners it may be anything: the sidecar does not
	// know its names there, and no browser comes by a unix socket.
	Hosts []string
	// Proxied has it look at requests that are proxied, too, which else are the
	// node's own affair.
	Proxied bool
}

// admitOwn checks a request to one of the sidecar's own paths, adds what CORS asks
// for, and answers preflights and refusals itself: then it returns false.
func (g *Guard) admitOwn(w http.ResponseWriter, r *http.Request) bool {
	answer, preflight, err := g.check(&query{r.Method, r.Host, httpmsg.OnLoopback(r.Context()), r.TLS != nil, r.Header.Get})
	if !preflight {
		// Whoever keeps the answer must not give it to a page of another origin,
		// also if it is one to nobody's page (RFC 9110 section 12.5.5).
		w.Header().Add("Vary", "Origin")
	}
	for _, f := range answer {
		w.Header().Add(f.Name, f.Value)
	}
	switch {
	case err != nil:
		Fail(w, r, err)
	case preflight:
		w.WriteHeader(http.StatusNoContent)
	}
	return err == nil && !preflight
}

// admit is admitOwn for the data plane. done means that the answer was given. Its
// answers to RPC, to POST, are kept by nobody: they say "Vary" when there is an
// origin.
func (g *Guard) admit(r *httpmsg.Request, w httpmsg.ResponseWriter) (_ httpmsg.ResponseWriter, done bool, _ error) {
	answer, preflight, err := g.check(&query{r.Method, r.Host, r.Loopback, r.TLS, r.Header.Get})
	if err != nil {
		return &withHeader{w, httpmsg.Header{{Name: "Vary", Value: "Origin"}}}, false, err
	}
	if preflight {
		if err := w.Head(http.StatusNoContent, append(answer, httpmsg.Date()), 0); err != nil {
			return w, true, httpmsg.ErrAborted
		}
		return w, true, nil
	}
	if len(answer) > 0 || g.Proxied {
		answer.Add("Vary", "Origin")
		w = &withHeader{w, answer}
	}
	return w, false, nil
}

// withHeader adds fields to an answer.
type withHeader struct {
	httpmsg.ResponseWriter
	extra httpmsg.Header
}

func (w *withHeader) Head(status int, h httpmsg.Header, length int64) error {
	h = h.Clone()
	for _, f := range w.extra {
		if f.Name == "Vary" {
			h.Add(f.Name, f.Value)
		} else {
			h.Set(f.Name, f.Value) // also in place of what a node says, who was not asked
		}
	}
	return w.ResponseWriter.Head(status, h, length)
}

// query is what the guard looks at in a request.
type query struct {
	method, host string
	loopback     bool // the listener
	tls          bool
	get          func(string) string // of the header
}

// check returns the fields to add to the answer and whether the request is a
// preflight (Fetch standard, CORS protocol), or why it is refused.
func (g *Guard) check(r *query) (answer httpmsg.Header, preflight bool, err error) {
	if r.loopback && !g.knownHost(r.host) {
		return nil, false, httpmsg.Errorf(http.StatusForbidden, "host %q is neither loopback nor in --allowed_hosts", r.host)
	}
	origin := r.get("Origin")
	if origin == "" && r.fromElsewhere() {
		return nil, false, httpmsg.Errorf(http.StatusForbidden, "a page of another origin asks, and tells no origin")
	}
	if origin == "" || sameOrigin(origin, r.host, r.tls) {
		return nil, false, nil
	}
	switch {
	case slices.Contains(g.Origins, origin):
		answer.Add("Access-Control-Allow-Origin", origin)
		answer.Add("Access-Control-Allow-Credentials", "true")
	case slices.Contains(g.Origins, "*"):
		answer.Add("Access-Control-Allow-Origin", "*")
	default:
		return nil, false, httpmsg.Errorf(http.StatusForbidden, "origin %s is not in --cors", origin)
	}
	if r.method == http.MethodOptions && r.get("Access-Control-Request-Method") != "" {
		return append(answer, r.preflight()...), true, nil
	}
	answer.Add("Access-Control-Expose-Headers", exposed)
	return answer, false, nil
}

// exposed are the fields of answers that pages may read beside those that the
// Fetch standard lets them read.
const exposed = "Allow, Retry-After, WWW-Authenticate, X-Request-Id"

// preflight is what a page may do that may ask at all: whatever it wants, the
// method and the fields are looked at when it does.
func (r *query) preflight() (answer httpmsg.Header) {
	answer.Add("Access-Control-Allow-Methods", r.get("Access-Control-Request-Method"))
	if asked := r.get("Access-Control-Request-Headers"); asked != "" {
		answer.Add("Access-Control-Allow-Headers", asked)
	}
	if r.get("Access-Control-Request-Private-Network") == "true" { // from a page of the internet
		answer.Add("Access-Control-Allow-Private-Network", "true")
	}
	answer.Add("Access-Control-Max-Age", "600")
	answer.Add("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network")
	return answer
}

// fromElsewhere tells the requests of other pages that send no Origin: images and
// scripts, say (Fetch Metadata). A link that somebody follows is none: the page
// that it is on learns nothing; one that would show the answer in a frame is.
func (r *query) fromElsewhere() bool {
	if site := r.get("Sec-Fetch-Site"); site != "cross-site" && site != "same-site" {
		return false
	}
	return r.get("Sec-Fetch-Mode") != "navigate" || strings.HasSuffix(r.get("Sec-Fetch-Dest"), "frame") ||
		r.get("Sec-Fetch-Dest") == "object" || r.get("Sec-Fetch-Dest") == "embed"
}

func sameOrigin(origin, host string, tls bool) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return u.Scheme == scheme && strings.EqualFold(u.Host, host)
}

// knownHost reports whether a Host field is fine on a loopback listener. A
// request without one (HTTP/1.0) comes from no browser.
func (g *Guard) knownHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.Trim(name, "[]"), ".")
	if name == "" || strings.EqualFold(name, "localhost") || strings.HasSuffix(strings.ToLower(name), ".localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(g.Hosts, func(allowed string) bool {
		return strings.EqualFold(allowed, name) || strings.EqualFold(allowed, host)
	})
}
