package mdns

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/micro/sidecar/registry"
)

const (
	// Whatever a network sends, no more than this is kept.
	maxCached   = 20_000
	maxCacheMem = 64 << 20 // bytes, about
	maxListed   = 5_000
	// A node that did not answer so many questions in a row is gone, though
	// its time to live is not over: RFC 6762 section 10.5.
	maxMissed = 3
	// doubtTime is what a node has to answer in that another one was seen at
	// its address.
	doubtTime = 2500 * time.Millisecond
)

// cached is a node that was heard of.
type cached struct {
	*entry
	expires time.Time
	heard   bool      // since the last question
	missed  int       // questions in a row
	doubted time.Time // when it is gone unless it is heard; zero: it is not doubted
}

// cache is what was heard. Its owner guards it.
type cache struct {
	nodes    map[string]*cached             // by domain name
	services map[string]map[string]struct{} // service to the domain names of its nodes, ours too
	at       map[string]map[string]struct{} // address to the domain names of nodes there
	listed   map[string]int                 // labels of services, and how many questions since they were heard
	size     int
}

func newCache() cache {
	return cache{nodes: map[string]*cached{}, services: map[string]map[string]struct{}{}, at: map[string]map[string]struct{}{}, listed: map[string]int{}}
}

func (c *cache) index(service, name string)   { put(c.services, service, name) }
func (c *cache) unindex(service, name string) { drop(c.services, service, name) }

func put(m map[string]map[string]struct{}, key, name string) {
	if m[key] == nil {
		m[key] = map[string]struct{}{}
	}
	m[key][name] = struct{}{}
}

func drop(m map[string]map[string]struct{}, key, name string) {
	delete(m[key], name)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// sorted returns the domain names of a service's nodes.
func (c *cache) sorted(service string) []string {
	return slices.Sorted(maps.Keys(c.services[service]))
}

// hear takes a node in, and reports whether there was room, and whether it is
// a new one or at a new address.
func (c *cache) hear(name string, e *entry, now time.Time) (room, moved bool) {
	before := c.nodes[name]
	grows := e.size
	if before != nil {
		grows -= before.size
	} else if len(c.nodes) >= maxCached {
		return false, false
	}
	if c.size+grows > maxCacheMem {
		return false, false
	}
	moved = before == nil || before.node().HostPort() != e.node().HostPort()
	if before != nil {
		c.forget(name)
	}
	c.nodes[name] = &cached{entry: e, expires: now.Add(e.ttl), heard: true}
	c.size += e.size
	c.index(e.service.Name, name)
	put(c.at, e.node().HostPort(), name)
	return true, moved
}

// forget takes a node out.
func (c *cache) forget(name string) {
	n := c.nodes[name]
	if n == nil {
		return
	}
	delete(c.nodes, name)
	c.size -= n.size
	c.unindex(n.service.Name, name)
	drop(c.at, n.node().HostPort(), name)
}

// list takes in that there is a service, and reports whether that is news.
func (c *cache) list(label string) bool {
	_, known := c.listed[label]
	if !known && len(c.listed) >= maxListed {
		return false
	}
	c.listed[label] = 0
	return !known
}

// asked notes that a question goes out to all, and forgets who has let too
// many pass. It returns the services that lost nodes.
func (c *cache) asked() (lost map[string]bool) {
	lost = map[string]bool{}
	for name, n := range c.nodes {
		if n.heard {
			n.heard, n.missed = false, 0
			continue
		}
		if n.missed++; n.missed >= maxMissed {
			c.forget(name)
			lost[n.service.Name] = true
		}
	}
	for label := range c.listed {
		if c.listed[label]++; c.listed[label] > maxMissed {
			delete(c.listed, label)
		}
	}
	return lost
}

// expire forgets whose time is over, and returns the services that lost nodes.
func (c *cache) expire(now time.Time) (lost map[string]bool) {
	lost = map[string]bool{}
	for name, n := range c.nodes {
		if !now.Before(n.expires) || !n.doubted.IsZero() && now.After(n.doubted) {
			c.forget(name)
			lost[n.service.Name] = true
		}
	}
	return lost
}

// single is s with n as its only node.
func single(s registry.Service, n registry.Node) registry.Service {
	s.Nodes = []registry.Node{n}
	return s
}

func equal(a, b registry.Service) bool { return reflect.DeepEqual(a, b) }
