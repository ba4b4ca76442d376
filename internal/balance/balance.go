// Package balance chooses the node of a service that gets the next request, and
// decides whether a request that failed is sent once more, when and to which
// node. It reads and writes what discovery keeps of nodes and services; what it
// holds itself is the limit on requests at a time. It takes a lock only when
// something fails or has to wait.
package balance

import (
	"fmt"
	"strings"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// Picker chooses a node of s that is not among tried, or nil when none is
// left. key is what the request is hashed by, 0 when there is nothing. A
// Picker is safe for concurrent use and does not allocate.
type Picker func(s *discovery.Service, key uint64, tried []*discovery.Node) *discovery.Node

// Selectors returns the names that [New] takes, for help and error texts.
// "hash" may be followed by ":" and the name of a header field.
func Selectors() []string {
	return []string{"p2c", "roundrobin", "leastrequest", "random", "hash"}
}

// New returns a balancer whose selector is one of [Selectors]; the fields of
// [Balancer] but Pick may be set before first use.
func New(selector string) (*Balancer, error) {
	b := &Balancer{}
	name, field, hasField := strings.Cut(selector, ":")
	switch {
	case hasField && (name != "hash" || !isToken(field)):
		return nil, fmt.Errorf("selector %q: only hash takes the name of a header field, as in hash:X-User", selector)
	case name == "p2c":
		b.Pick = P2C
	case name == "roundrobin":
		b.Pick = RoundRobin
	case name == "leastrequest":
		b.Pick = LeastRequest
	case name == "random":
		b.Pick = Random
	case name == "hash":
		b.Pick, b.key = Hash, keyOf(field)
	default:
		return nil, fmt.Errorf("unknown selector %q: expected one of %s, hash:HEADER", selector, strings.Join(Selectors(), ", "))
	}
	return b, nil
}

// isToken reports whether s may be the name of a header field (RFC 9110
// section 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		letter, digit := 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9'
		if !letter && !digit && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// keyOf returns what requests are hashed by: the first value of the header
// field, and where that is absent, or field is "", the client's address
// without its port.
func keyOf(field string) func(*httpmsg.Request) uint64 {
	return func(r *httpmsg.Request) uint64 {
		value := ""
		switch {
		case strings.EqualFold(field, "Host"):
			value = r.Host
		case field != "":
			value = r.Header.Get(field)
		}
		if value == "" {
			// What has no port, as a Unix socket's peer, is no address.
			value = r.RemoteAddr[:max(strings.LastIndexByte(r.RemoteAddr, ':'), 0)]
		}
		if value == "" {
			return 0
		}
		return max(discovery.Hash(value), 1) // 0 says that there is nothing
	}
}

// now is [discovery.Now].
func now() int64 { return discovery.Now() }
