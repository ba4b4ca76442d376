package etcd

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/micro/sidecar/registry"
)

const (
	// maxValue bounds a value in bytes, written or read.
	maxValue = 1 << 20
	// maxValues bounds the nesting of an endpoint's values.
	maxValues = 64
)

// record is the value of a key: a service with one node, as go-micro writes it.
type record struct {
	Name      string              `json:"name"`
	Version   string              `json:"version"`
	Metadata  map[string]string   `json:"metadata"`
	Endpoints []registry.Endpoint `json:"endpoints"`
	Nodes     []*node             `json:"nodes"`
}

// node is a node with the port in its address. Older versions of go-micro
// wrote it apart.
type node struct {
	ID       string            `json:"id"`
	Address  string            `json:"address"`
	Port     int               `json:"port,omitempty"`
	Metadata map[string]string `json:"metadata"`
}

// encode makes the value for one node of s.
func encode(s registry.Service, n registry.Node) ([]byte, error) {
	data, err := json.Marshal(record{
		Name: s.Name, Version: s.Version, Metadata: s.Metadata, Endpoints: s.Endpoints,
		Nodes: []*node{{ID: n.ID, Address: n.HostPort(), Metadata: n.Metadata}},
	})
	if err != nil {
		return nil, err
	}
	if len(data) > maxValue {
		return nil, fmt.Errorf("expected a registration of at most %d bytes, got %d", maxValue, len(data))
	}
	return data, nil
}

// entry is one registered node.
type entry struct {
	revision int64
	service  registry.Service // with this one node
}

// decode reads a value that anybody may have written, at a key below the
// prefix.
func decode(at string, value []byte) (*entry, error) {
	if len(value) > maxValue {
		return nil, fmt.Errorf("expected at most %d bytes, got %d", maxValue, len(value))
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	dir, leaf, _ := strings.Cut(at, "/")
	i := slices.IndexFunc(r.Nodes, func(n *node) bool { return n != nil })
	if i < 0 {
		return nil, errors.New("it has no node")
	}
	n := r.Nodes[i]
	if name, id, ok := decodeKey(at); ok {
		r.Name, n.ID = name, id // JSON does not hold every string
	} else if r.Name == "" || n.ID == "" || folder(r.Name) != dir || hyphened(n.ID) != leaf {
		return nil, errors.New("the key is not that of the service and node in it")
	}
	address, port, err := reach(n)
	if err != nil {
		return nil, err
	}
	for i, e := range r.Endpoints {
		r.Endpoints[i].Request, r.Endpoints[i].Response = tidy(e.Request, 0), tidy(e.Response, 0)
	}
	return &entry{service: registry.Service{
		Name: r.Name, Version: r.Version, Metadata: r.Metadata, Endpoints: r.Endpoints,
		Nodes: []registry.Node{{ID: n.ID, Address: address, Port: port, Metadata: n.Metadata}},
	}}, nil
}

// reach returns where a node listens.
func reach(n *node) (address string, port int, err error) {
	if strings.HasPrefix(n.Address, registry.UnixPrefix) {
		return n.Address, 0, registry.CheckUnix(n.Address)
	}
	address, port = n.Address, n.Port
	if host, text, err := net.SplitHostPort(n.Address); err == nil {
		number, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("address: expected a port from 1 to 65535, got %.20q", text)
		}
		address, port = host, int(number)
	}
	bad := strings.ContainsFunc(address, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
	if address == "" || bad {
		return "", 0, fmt.Errorf("address: expected host:port, got %.100q", n.Address)
	}
	if port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("port: expected 1 to 65535, got %d", port)
	}
	return address, port, nil
}

// tidy drops what nobody could walk: null values and endless nesting.
func tidy(v *registry.Value, depth int) *registry.Value {
	if v == nil || depth == maxValues {
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

// group makes what Get answers of the entries of one service: one Service a
// version, described as it was written last. A node that is there twice, under
// go-micro's key and under ours, is the later one.
func group(entries []*entry) []registry.Service {
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(b.revision, a.revision) })
	at, seen := make(map[string]int), make(map[string]bool)
	services := []registry.Service{}
	for _, e := range entries {
		n := e.service.Nodes[0]
		if seen[n.ID] {
			continue
		}
		seen[n.ID] = true
		i, there := at[e.service.Version]
		if !there {
			i = len(services)
			at[e.service.Version] = i
			services = append(services, e.service)
			continue
		}
		services[i].Nodes = append(services[i].Nodes, n)
	}
	registry.Sort(services)
	return services
}
