// Package engineurl reads the addresses of engines, as --registry_address and
// --broker_address give them: URLs with one host or several, or the hosts
// alone, and parameters that a driver asks for by name. It owns their
// syntax, the parameters of TLS, and the refusal of what nobody asked for; a
// driver owns what its parameters mean.
//
// Errors are for people and never show a password.
package engineurl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// maxAddress bounds an address in bytes.
const maxAddress = 64 << 10

// Parse reads an address: a URL, or what follows the :// in one, which then
// gets the scheme. "a:1,b:2" and "[::1]:1,[::2]:2" are lists of hosts: they
// stay in the URL's Host as they are, for [Hosts] to split. (The URL's own
// Hostname and Port make no sense of a list.) The host may be left out where a
// port or a path is there: it depends on the driver what that means.
func Parse(scheme, text string) (*url.URL, error) {
	if len(text) > maxAddress {
		return nil, fmt.Errorf("expected at most %d bytes, got %d", maxAddress, len(text))
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return nil, errors.New("expected HOST:PORT or a URL, got spaces in it")
	}
	rest := text
	if before, after, ok := strings.Cut(text, "://"); ok && !strings.ContainsAny(before, "/?#") {
		scheme, rest = before, after
	}
	// net/url takes no list of IPv6 addresses, and what it takes of others
	// changes: it sees none.
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	start := strings.LastIndexByte(rest[:end], '@') + 1
	hosts := rest[start:end]
	placeholder := "x"
	if hosts == "" {
		placeholder = ""
	}
	u, err := url.Parse(scheme + "://" + rest[:start] + placeholder + rest[end:])
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // without the text, which may hold a password
		}
		if start > 0 {
			err = errors.New("invalid user or password: anything but letters, digits, - . _ and ~ is written as % and two hex digits")
		}
		return nil, fmt.Errorf("expected HOST:PORT or a URL: %w", err)
	}
	if hosts == "" && u.Path == "" {
		return nil, errors.New("expected HOST:PORT or a URL, got no host and no path")
	}
	if u.Fragment != "" || strings.HasSuffix(rest, "#") {
		return nil, errors.New("expected HOST:PORT or a URL, got a # in it, which is written as %23")
	}
	u.Host = hosts
	return u, checkHosts(hosts, rest[end:])
}

// checkHosts looks at the hosts of an address, and what follows them.
func checkHosts(hosts, after string) error {
	if hosts == "" {
		return nil
	}
	for text := range strings.SplitSeq(hosts, ",") {
		if _, _, err := splitHost(text); err != nil {
			if strings.Contains(after, "@") { // not shown: it may be a password
				return errors.New("expected HOST:PORT or a URL, got a / ? or # before an @, which is written as % and two hex digits")
			}
			return fmt.Errorf("expected HOST:PORT or a URL: %.100q: %w", text, err)
		}
	}
	return nil
}

// Hosts returns the hosts of u as "host:port", in order; those without a port
// get defaultPort. There is at least one, and each has a host and a port from
// 1 to 65535.
func Hosts(u *url.URL, defaultPort string) ([]string, error) {
	if u.Host == "" {
		return nil, errors.New("expected HOST:PORT, got no host")
	}
	var hosts []string
	for text := range strings.SplitSeq(u.Host, ",") {
		host, port, err := splitHost(text)
		if err == nil && host == "" {
			err = errors.New("expected HOST:PORT, got no host")
		}
		if err != nil {
			return nil, fmt.Errorf("%.100q: %w", text, err)
		}
		if port == "" {
			port = defaultPort
		}
		hosts = append(hosts, net.JoinHostPort(host, port))
	}
	return hosts, nil
}

// splitHost splits "host", "host:port", ":port", "[IPv6]" and "[IPv6]:port".
func splitHost(text string) (host, port string, err error) {
	if rest, bracket := strings.CutPrefix(text, "["); bracket {
		var after string
		var closed bool
		host, after, closed = strings.Cut(rest, "]")
		ip, err := netip.ParseAddr(host)
		if !closed || err != nil || !ip.Is6() || after != "" && after[0] != ':' {
			return "", "", errors.New("expected [IPv6 address]:PORT")
		}
		if after == "" {
			return host, "", nil
		}
		port = after[1:]
	} else {
		var found bool
		host, port, found = strings.Cut(text, ":")
		if !validHost(host) || host == "" && !found {
			return "", "", errors.New("expected host names or IP addresses, each with a port, separated by commas")
		}
		if !found {
			return host, "", nil
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
		return "", "", errors.New("expected a port from 1 to 65535")
	}
	return host, port, nil
}

// validHost takes what resolvers take.
func validHost(host string) bool {
	return len(host) <= 255 && !strings.ContainsFunc(host, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && r != '-' && r != '.' && r != '_'
	})
}
