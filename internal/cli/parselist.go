package cli

import (
	"context"
	"net"
	"net/url"
	"strings"
	"unicode"

	"github.com/micro/sidecar/registry"
)

// The parsers of lists: each gets the items, however they were separated.

// splitList splits at commas and leaves empty items out.
func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// parseListens takes addresses to listen on.
func parseListens(items []string) ([]string, error) {
	out := make([]string, 0, len(items))
	for _, item := range items {
		address, err := parseListen(item)
		if err != nil {
			return nil, err
		}
		out = append(out, address)
	}
	return out, nil
}

// parseOrigins takes web origins (RFC 6454 section 6.2), or "*".
func parseOrigins(items []string) ([]string, error) {
	for _, item := range items {
		u, err := url.Parse(item)
		if item == "*" || err == nil && u.Host != "" && !badPort(u) && item == u.Scheme+"://"+u.Host {
			continue
		}
		return nil, expected(item, "an origin such as https://app.example.com, or *")
	}
	return items, nil
}

// parseHosts takes host names as they stand in a Host header, without a port.
func parseHosts(items []string) ([]string, error) {
	out := make([]string, 0, len(items))
	for _, item := range items {
		host := strings.TrimSuffix(strings.TrimPrefix(item, "["), "]")
		if host == "" || !validHost(host) {
			return nil, expected(item, "a host name or an IP address, without a port")
		}
		out = append(out, host)
	}
	return out, nil
}

// parseMetadata takes "key=value" items.
func parseMetadata(items []string) (map[string]string, error) {
	return pairs(items, "metadata as key=value")
}

// parseHeaders takes "name=value" items. They must be fit for HTTP, because a
// message may travel that way.
func parseHeaders(items []string) (map[string]string, error) {
	const form = "a header as name=value"
	out, err := pairs(items, form)
	if err != nil {
		return nil, err
	}
	for name, value := range out {
		if strings.ContainsFunc(name, notToken) || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, expected(name+"="+value, form)
		}
	}
	return out, nil
}

// notToken reports whether r cannot stand in a field name (RFC 9110 section
// 5.6.2).
func notToken(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// pairs splits each item at its first "=".
func pairs(items []string, form string) (map[string]string, error) {
	out := make(map[string]string, len(items))
	for _, item := range items {
		key, value, ok := strings.Cut(item, "=")
		if key = strings.TrimSpace(key); !ok || key == "" || strings.ContainsFunc(key, unicode.IsControl) {
			return nil, expected(item, form)
		}
		out[key] = value
	}
	return out, nil
}

// proxyURL says where a sidecar is.
type proxyURL struct {
	url    *url.URL // the base of its paths
	socket string   // the path of its unix socket, "" for TCP
}

const proxyForm = "HOST:PORT, an http or https URL, or unix:/PATH of a sidecar"

// parseProxy takes HOST:PORT, or a URL of which only scheme, host and path count.
func parseProxy(s string) (*proxyURL, error) {
	if path, ok, err := unixPath(s); ok {
		return &proxyURL{url: &url.URL{Scheme: "http", Host: "localhost"}, socket: path}, err
	}
	if !strings.Contains(s, "://") {
		a, err := parseAddress(s)
		if err != nil {
			return nil, expected(s, proxyForm)
		}
		return &proxyURL{url: &url.URL{Scheme: "http", Host: a.String()}}, nil
	}
	if _, err := parseProbeURL(s); err != nil {
		return nil, expected(s, proxyForm)
	}
	u, err := url.Parse(s)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, expected(s, proxyForm+", without user, query or fragment")
	}
	return &proxyURL{url: u}, nil
}

// String names the sidecar in messages.
func (p *proxyURL) String() string {
	if p.socket != "" {
		return "unix:" + p.socket
	}
	return p.url.Host
}

// dial connects to the sidecar; address is what the URL says.
func (p *proxyURL) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if p.socket != "" {
		network, address = "unix", p.socket
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// endpoint returns the URL of one of the sidecar's own paths.
func (p *proxyURL) endpoint(path string, query url.Values) string {
	u := p.url.JoinPath(path)
	u.RawQuery = query.Encode()
	return u.String()
}

// hostPort is a TCP address, or that of a unix socket, whose port is 0; the
// zero value is none.
type hostPort struct {
	host string // without brackets
	port int
}

// String returns the form of registry.Node.HostPort, "" for none.
func (a hostPort) String() string {
	if a == (hostPort{}) {
		return ""
	}
	return registry.Node{Address: a.host, Port: a.port}.HostPort()
}
