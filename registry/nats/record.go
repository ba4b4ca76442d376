package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/engine/token"
	"github.com/micro/sidecar/registry"
)

const (
	// recordFormat is the version of a value that this program writes and the
	// newest it reads.
	recordFormat = 1
	// maxRecord bounds a value in bytes, written or read.
	maxRecord = 1 << 20
)

// record is the value of a key: one node, with what was said about its
// service when it was registered.
type record struct {
	Format int `json:"format"`
	// Deadline is when the registration ends, in milliseconds since 1970; 0
	// is never.
	Deadline  int64               `json:"deadline,omitempty"`
	Name      string              `json:"name"`
	Version   string              `json:"version,omitempty"`
	Metadata  map[string]string   `json:"metadata,omitempty"`
	Endpoints []registry.Endpoint `json:"endpoints,omitempty"`
	Node      registry.Node       `json:"node"`
}

// key is where a node is kept: the service's token and the node's, so that a
// service's nodes are found by a prefix.
func key(name, id string) string { return token.Encode(name) + "." + token.Encode(id) }

// encode makes the value for one node of s.
func encode(s registry.Service, n registry.Node, deadline time.Time) ([]byte, error) {
	r := record{Format: recordFormat, Name: s.Name, Version: s.Version, Metadata: s.Metadata, Endpoints: s.Endpoints, Node: n}
	if !deadline.IsZero() {
		r.Deadline = deadline.UnixMilli()
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("node %.100q: expected a registration of at most %d bytes, got %d", n.ID, maxRecord, len(data))
	}
	return data, nil
}

// decode reads an entry that anybody may have written.
func decode(at string, data []byte) (*entry, error) {
	if len(data) > maxRecord {
		return nil, fmt.Errorf("expected at most %d bytes, got %d", maxRecord, len(data))
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r.Format < 1 || r.Format > recordFormat {
		return nil, fmt.Errorf("format: expected 1 to %d, got %d", recordFormat, r.Format)
	}
	nameToken, idToken, _ := strings.Cut(at, ".")
	// JSON does not hold every string; the key does, unless it is a digest.
	if name, ok := token.Decode(nameToken); ok {
		r.Name = name
	}
	if id, ok := token.Decode(idToken); ok {
		r.Node.ID = id
	}
	if r.Name == "" || r.Node.ID == "" || key(r.Name, r.Node.ID) != at {
		return nil, errors.New("the key is not that of the service and node in it")
	}
	if err := registry.CheckNode(r.Node); err != nil {
		return nil, err
	}
	e := &entry{key: at, service: registry.Service{
		Name: r.Name, Version: r.Version, Metadata: r.Metadata, Endpoints: r.Endpoints, Nodes: []registry.Node{r.Node},
	}}
	if r.Deadline != 0 {
		e.written = time.UnixMilli(r.Deadline)
		e.deadline = steady(e.written)
	}
	return e, nil
}
