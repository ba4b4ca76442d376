package discovery

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/micro/sidecar/internal/stats"
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
	// Meter counts what was asked of it.
	Meter stats.Meter
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
	// ServerName is what the node's certificate has to be for when it is not
	// the host of Addr: metadata tls_server_name.
	ServerName string
}

// NewNode returns a node without history.
func NewNode(n registry.Node, version string) *Node {
	protocol := n.Metadata["protocol"]
	peer := Peer{
		Addr:  n.HostPort(),
		TLS:   n.Metadata["secure"] == "true",
		HTTP2: n.Metadata["h2c"] == "true" || protocol == "grpc" || protocol == "" && n.Metadata["server"] == "grpc",
	}
	if peer.TLS {
		peer.ServerName = n.Metadata["tls_server_name"]
	}
	return &Node{Node: n, Version: version, Peer: peer}
}

// Load is the state of a node that the balancer reads and writes. All of it
// is atomic; the zero value is a node without history.
type Load struct {
	// InFlight is the number of requests that wait for the node to begin its
	// answer, with RPC, to end it.
	InFlight atomic.Int64
	// Open is the number of answers that began and have not ended: bodies,
	// streams, WebSockets.
	Open atomic.Int64
	// Latency is a moving average in nanoseconds, 0 when nothing was measured.
	Latency atomic.Int64
	// Measured is when Latency last changed, as [Now] has it.
	Measured atomic.Int64
	// Failed is when the node last could not be reached, on the same clock; 0
	// when it has answered since.
	Failed atomic.Int64

	// Of ejections, see Outliers. until is when a node that is out is due for a
	// request, 0 while it is in the rotation; back is when it last came back.
	until, back atomic.Int64
	failures    atomic.Int64 // in a row
	times       atomic.Int64 // ejections, less what it has made good since
	ejected     atomic.Int64 // ejections so far
}

// Service is an immutable snapshot of a service: all nodes of all versions,
// sorted by id.
type Service struct {
	Name  string
	Nodes []*Node
	// Hashes are the nodes' places in consistent hashing, in the order of Nodes.
	Hashes []uint64
	// Account is shared by all snapshots of the service.
	*Account
	// Meter counts the requests to the service. Like Account it is shared, and
	// ends with the service.
	Meter *stats.Meter
	// Versions is what the engine said, one a version.
	Versions []registry.Service
}

// NewService returns the first snapshot of a service; it sorts nodes.
func NewService(name string, nodes []*Node) *Service {
	slices.SortFunc(nodes, byID)
	s := &Service{Name: name, Nodes: nodes, Hashes: make([]uint64, len(nodes)), Account: NewAccount(), Meter: new(stats.Meter)}
	for i, n := range nodes {
		s.Hashes[i] = Hash(n.ID)
	}
	return s
}

func byID(a, b *Node) int { return cmp.Compare(a.ID, b.ID) }

// Hash is a hash of s that is the same in every process: FNV-1a, mixed.
func Hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return Mix(h)
}

// Mix spreads what differs in a few bits over all of them (the last step of
// MurmurHash3).
func Mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
