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
	// Origins may call from a browser, like "https://shop.example"; "*" means any.
	Origins []string
	// Loopback says that the listeners are on loopback alone: then Host must be
	// a loopback name or one of Hosts. On unix sockets it may be anything: no
	// browser comes that way.
	Loopback bool
	Hosts    []string
}

// admitOwn checks a request to one of the sidecar's own paths, adds what CORS asks
// for, and answers preflights and refusals itself: then it returns false.
func (g *Guard) admitOwn(w http.ResponseWriter, r *http.Request) bool {
	answer, preflight, err := g.check(&query{r.Method, r.Host, r.RemoteAddr, r.TLS != nil, r.Header.Get})
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

// admit is admitOwn for the data plane. done means that the answer was given.
func (g *Guard) admit(r *httpmsg.Request, w httpmsg.ResponseWriter) (_ httpmsg.ResponseWriter, done bool, _ error) {
	answer, preflight, err := g.check(&query{r.Method, r.Host, r.RemoteAddr, r.TLS, r.Header.Get})
	if err != nil {
		return w, false, err
	}
	if preflight {
		if err := w.Head(http.StatusNoContent, answer, 0); err != nil {
			return w, true, httpmsg.ErrAborted
		}
		return w, true, nil
	}
	if len(answer) > 0 {
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
	return w.ResponseWriter.Head(status, append(h.Clone(), w.extra...), length)
}

// query is what the guard looks at in a request.
type query struct {
	method, host, remote string
	tls                  bool
	get                  func(string) string // of the header
}

// check returns the fields to add to the answer and whether the request is a
// preflight (Fetch standard, CORS protocol), or why it is refused.
func (g *Guard) check(r *query) (answer httpmsg.Header, preflight bool, err error) {
	if g.Loopback && r.remote != httpmsg.UnixClient && !g.knownHost(r.host) {
		return nil, false, httpmsg.Errorf(http.StatusForbidden, "host %q is neither loopback nor in --allowed_hosts", r.host)
	}
	get := r.get
	origin := get("Origin")
	if origin == "" && get("Sec-Fetch-Site") == "cross-site" && get("Sec-Fetch-Mode") != "navigate" {
		// A page that asks without CORS, for an image say, sends no Origin.
		return nil, false, httpmsg.Errorf(http.StatusForbidden, "a page of another site asks, and tells no origin")
	}
	if origin == "" || sameOrigin(origin, r.host, r.tls) {
		return nil, false, nil
	}
	if !slices.Contains(g.Origins, origin) && !slices.Contains(g.Origins, "*") {
		return nil, false, httpmsg.Errorf(http.StatusForbidden, "origin %s is not in --cors", origin)
	}
	answer.Add("Access-Control-Allow-Origin", origin)
	answer.Add("Vary", "Origin")
	if r.method == http.MethodOptions && get("Access-Control-Request-Method") != "" {
		answer.Add("Access-Control-Allow-Methods", "GET, POST, DELETE")
		if asked := get("Access-Control-Request-Headers"); asked != "" {
			answer.Add("Access-Control-Allow-Headers", asked)
		}
		answer.Add("Access-Control-Max-Age", "600")
		return answer, true, nil
	}
	return answer, false, nil
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
