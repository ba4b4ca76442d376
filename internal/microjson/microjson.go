// Package microjson is the JSON in which go-micro keeps a service in etcd and
// tells it over NATS: a service with nodes whose address holds the port. It
// owns what of it makes sense, whoever wrote it, and not where it stands.
package microjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/micro/sidecar/registry"
)

const (
	// MaxSize bounds a service in bytes, written or read.
	MaxSize = 1 << 20
	// maxDepth bounds the nesting of an endpoint's values.
	maxDepth = 64
)

// Service is a service as go-micro writes it.
type Service struct {
	Name      string              `json:"name"`
	Version   string              `json:"version"`
	Metadata  map[string]string   `json:"metadata"`
	Endpoints []registry.Endpoint `json:"endpoints"`
	Nodes     []*Node             `json:"nodes"`
}

// Node is a node with the port in its address. Older versions of go-micro
// wrote it apart.
type Node struct {
	ID       string            `json:"id"`
	Address  string            `json:"address"`
	Port     int               `json:"port,omitempty"`
	Metadata map[string]string `json:"metadata"`
}

// From returns s in go-micro's form.
func From(s registry.Service) *Service {
	m := &Service{Name: s.Name, Version: s.Version, Metadata: s.Metadata, Endpoints: s.Endpoints}
	for _, n := range s.Nodes {
		m.Nodes = append(m.Nodes, &Node{ID: n.ID, Address: n.HostPort(), Metadata: n.Metadata})
	}
	return m
}

// Encode makes the JSON of a service.
func Encode(s registry.Service) ([]byte, error) {
	data, err := json.Marshal(From(s))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("expected a registration of at most %d bytes, got %d", MaxSize, len(data))
	}
	return data, nil
}

// Decode reads the JSON of a service. It has a name and at least one node;
// nodes that nobody can reach are left out.
func Decode(data []byte) (registry.Service, error) {
	if len(data) > MaxSize {
		return registry.Service{}, fmt.Errorf("expected at most %d bytes, got %d", MaxSize, len(data))
	}
	var m Service
	if err := json.Unmarshal(data, &m); err != nil {
		return registry.Service{}, err
	}
	return m.Service()
}

// Service returns what of m makes sense, as [Decode]. It may change m.
func (m *Service) Service() (registry.Service, error) {
	s := registry.Service{Name: m.Name, Version: m.Version, Metadata: m.Metadata, Endpoints: m.Endpoints}
	if m.Name == "" {
		return s, errors.New("it has no name")
	}
	err := errors.New("it has no node")
	for _, n := range m.Nodes {
		if n == nil || n.ID == "" {
			continue
		}
		address, port, bad := n.reach()
		if bad != nil {
			err = fmt.Errorf("node %.100q: %w", n.ID, bad)
			continue
		}
		s.Nodes = append(s.Nodes, registry.Node{ID: n.ID, Address: address, Port: port, Metadata: n.Metadata})
	}
	if len(s.Nodes) == 0 {
		return s, err
	}
	for i, e := range s.Endpoints {
		s.Endpoints[i].Request, s.Endpoints[i].Response = tidy(e.Request, 0), tidy(e.Response, 0)
	}
	return s, nil
}

// reach returns where a node listens.
func (n *Node) reach() (address string, port int, err error) {
	address, port = n.Address, n.Port
	if strings.HasPrefix(address, registry.UnixPrefix) {
		port = 0
	} else if host, text, err := net.SplitHostPort(address); err == nil {
		number, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("address: expected a port from 1 to 65535, got %.20q", text)
		}
		address, port = host, int(number)
	}
	return address, port, registry.CheckNode(registry.Node{Address: address, Port: port})
}

// tidy drops what nobody could walk: null values and endless nesting.
func tidy(v *registry.Value, depth int) *registry.Value {
	if v == nil || depth == maxDepth {
		return nil
	}
	values := v.Values
	v.Values = nil
	for _, child := range values {
		if child = tidy(child, depth+1); child != nil {
			v.Values = append(v.Values, child)
		}
	}
	return v
}
