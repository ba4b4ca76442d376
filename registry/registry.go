// Package registry is the port to service discovery: what a service, a node
// and a registry are. It owns the types, their JSON form and their
// validation; the drivers in the folders below talk to the engines. It
// imports nothing but the standard library.
package registry

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"
)

// ErrNotFound is returned by [Registry.Get] when the engine answered and does
// not know the service. Any other error means the engine could not be asked.
var ErrNotFound = errors.New("service not found")

// ErrReadOnly is returned by Register and Deregister of a registry that can
// only be read.
var ErrReadOnly = errors.New("this registry can only be read")

// Service is one version of a service and the nodes that run it.
type Service struct {
	Name      string            `json:"name"`
	Version   string            `json:"version"`
	Metadata  map[string]string `json:"metadata"`
	Endpoints []Endpoint        `json:"endpoints"`
	Nodes     []Node            `json:"nodes"`
}

// Node is one running instance of a service.
type Node struct {
	// ID identifies the node within its service.
	ID string `json:"id"`
	// Address is a host name or an IP address without brackets or port, or
	// [UnixPrefix] and the path of a unix socket.
	Address string `json:"address"`
	// Port is a TCP port, 1 to 65535; 0 with a unix socket.
	Port int `json:"port"`
	// Metadata says how the node is called, see docs/rpc.md.
	Metadata map[string]string `json:"metadata"`
}

// HostPort returns where the node listens: "host:port" in the form net.Dial
// takes, or "unix:/path".
func (n Node) HostPort() string {
	if strings.HasPrefix(n.Address, UnixPrefix) {
		return n.Address
	}
	return net.JoinHostPort(n.Address, strconv.Itoa(n.Port))
}

// Endpoint describes one method of a service, for people and tools to read.
type Endpoint struct {
	Name     string            `json:"name"`
	Request  *Value            `json:"request,omitempty"`
	Response *Value            `json:"response,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Value describes the shape of a request or an answer.
type Value struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Values []*Value `json:"values,omitempty"`
}

// Registry is a discovery engine. All methods are safe for concurrent use,
// honour the context's end promptly, and never wait longer than it.
//
// Names and ids are arbitrary non-empty strings: a driver encodes what its
// engine cannot hold. A node is identified by service name and node id.
type Registry interface {
	// Register adds every node of s, or renews those that are there. A node
	// registered again under another version, address or metadata is
	// replaced. After ttl without renewal it is gone; ttl 0 keeps it until it
	// is removed. The service is visible to Get when Register returns.
	Register(ctx context.Context, s Service, ttl time.Duration) error
	// Deregister removes the nodes of s, matched by service name and node id
	// alone. What is not there is no error.
	Deregister(ctx context.Context, s Service) error
	// Get asks the engine for the service: one Service a version, sorted by
	// version; nodes sorted by id; expired and failing nodes left out. A
	// service that the engine knows but that has no usable node is one
	// Service without nodes. An unknown one is ErrNotFound.
	Get(ctx context.Context, name string) ([]Service, error)
	// List asks the engine for the names of all services that have at least
	// one registered node, sorted, without duplicates.
	List(ctx context.Context) ([]string, error)
	// Watch blocks and reports every change of every service until ctx ends
	// (it then returns ctx's error) or the watch breaks (any other error; the
	// caller starts it again). Once the watch is live, and whenever events
	// may have been missed, it reports the zero Event. changed is called from
	// one goroutine at a time and returns quickly.
	Watch(ctx context.Context, changed func(Event)) error
}

// Event says that a service changed.
type Event struct {
	// Name is the service. "" means that anything may have changed: re-read
	// all that matters to you.
	Name string
	// Services is what Get would now answer, when the engine said so: empty
	// but not nil means the service is gone. nil means: re-read.
	Services []Service
}

// NameWatcher is implemented by registries whose engine watches a single
// service far more cheaply than all of them (Consul). WatchName behaves like
// Watch for that one name.
type NameWatcher interface {
	WatchName(ctx context.Context, name string, changed func(Event)) error
}

// Pinger is implemented by registries that can tell whether their engine can
// be reached now. The error is a sentence for people.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Fleeting is implemented by registries whose registrations end with the
// process that made them, whatever their TTL. Its method does nothing.
type Fleeting interface {
	EndsWithProcess()
}
