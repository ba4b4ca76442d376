package discovery

import (
	"sync/atomic"

	"github.com/micro/sidecar/registry"
)

// Node is a node in use. While a node's id, address and metadata stay as they
// are, every snapshot holds the same *Node, so what is measured about it lasts.
type Node struct {
	registry.Node
	// Version is the version of the service that the node runs.
	Version string
	// Peer is what the registration says about the way to reach it.
	Peer
	// Load is what balancing knows about the node.
	Load Load
}

// Peer is where a node is reached and how it is spoken to. It is comparable: two
// nodes with the same Peer share connections.
type Peer struct {
	// Addr is registry.Node.HostPort: "host:port" or "unix:/path".
	Addr string
	// TLS is what the metadata secure=true asks for.
	TLS bool
	// HTTP2 is spoken from the first byte: metadata h2c=true, protocol=grpc, or,
	// without a protocol, server=grpc. Over TLS, ALPN has the last word.
	HTTP2 bool
}

// NewNode returns a node without history.
func NewNode(n registry.Node, version string) *Node {
	protocol := n.Metadata["protocol"]
	return &Node{Node: n, Version: version, Peer: Peer{
		Addr:  n.HostPort(),
		TLS:   n.Metadata["secure"] == "true",
		HTTP2: n.Metadata["h2c"] == "true" || protocol == "grpc" || protocol == "" && n.Metadata["server"] == "grpc",
	}}
}

// Load is the state of a node that the balancer reads and writes. All of it
// is atomic; the zero value is a node without history.
type Load struct {
	// InFlight is the number of requests that the node is answering now.
	InFlight atomic.Int64
	// Latency is a moving average in nanoseconds, 0 when nothing was measured.
	Latency atomic.Int64
	// Measured is when Latency last changed, in nanoseconds since 1970.
	Measured atomic.Int64
}

// Service is an immutable snapshot of a service: all nodes of all versions,
// sorted by id.
type Service struct {
	Name  string
	Nodes []*Node
	// Versions is what the engine said, one a version.
	Versions []registry.Service
}
