package etcd

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/micro/sidecar/internal/microjson"
	"github.com/micro/sidecar/registry"
)

// entry is one registered node.
type entry struct {
	revision int64
	service  registry.Service // with this one node
}

// encode makes the value for one node of s, as go-micro writes it.
func encode(s registry.Service, n registry.Node) ([]byte, error) {
	s.Nodes = []registry.Node{n}
	return microjson.Encode(s)
}

// decode reads a value that anybody may have written, at a key below the
// prefix.
func decode(at string, value []byte) (*entry, error) {
	s, err := microjson.Decode(value)
	if err != nil {
		return nil, err
	}
	dir, leaf, _ := strings.Cut(at, "/")
	name, id, encoded := decodeKey(at)
	i := slices.IndexFunc(s.Nodes, func(n registry.Node) bool { return encoded || hyphened(n.ID) == leaf })
	switch {
	case i < 0 || !encoded && folder(s.Name) != dir:
		return nil, errors.New("the key is not that of the service and node in it")
	case encoded:
		s.Name, s.Nodes[i].ID = name, id // JSON does not hold every string
	}
	s.Nodes = s.Nodes[i : i+1]
	return &entry{service: s}, nil
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
