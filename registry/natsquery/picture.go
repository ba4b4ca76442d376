package natsquery

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/micro/sidecar/registry"
)

// member is one node.
type member struct {
	service registry.Service // with this one node
	last    time.Time        // when it was heard of
	round   int              // the last one in which it was heard of
	timer   *time.Timer      // ends it, where it is ours and has a time to live
}

func (m *member) id() string { return m.service.Nodes[0].ID }

// stop keeps a member from ending by itself.
func (m *member) stop() {
	if m != nil && m.timer != nil {
		m.timer.Stop()
	}
}

// picture is nodes by service and id.
type picture map[string]map[string]*member

// put adds or replaces a node and returns the one that was there.
func (p picture) put(m *member) (before *member) {
	nodes := p[m.service.Name]
	if nodes == nil {
		nodes = make(map[string]*member)
		p[m.service.Name] = nodes
	}
	before = nodes[m.id()]
	nodes[m.id()] = m
	return before
}

// remove drops a node and returns it, nil if there is none.
func (p picture) remove(name, id string) *member {
	m := p[name][id]
	delete(p[name], id)
	if len(p[name]) == 0 {
		delete(p, name)
	}
	return m
}

func (p picture) names() []string {
	return slices.AppendSeq(make([]string, 0, len(p)), slices.Values(slices.Sorted(maps.Keys(p))))
}

// group makes what Get answers: one Service a version, described as it was
// heard of last.
func (p picture) group(name string) []registry.Service {
	latest := slices.SortedFunc(maps.Values(p[name]), func(a, b *member) int {
		return cmp.Or(b.last.Compare(a.last), cmp.Compare(a.id(), b.id()))
	})
	at := make(map[string]int)
	var services []registry.Service
	for _, m := range latest {
		i, there := at[m.service.Version]
		if !there {
			i = len(services)
			at[m.service.Version] = i
			s := m.service
			s.Metadata, s.Nodes = maps.Clone(s.Metadata), nil
			services = append(services, s)
		}
		n := m.service.Nodes[0]
		n.Metadata = maps.Clone(n.Metadata)
		services[i].Nodes = append(services[i].Nodes, n)
	}
	registry.Sort(services)
	return services
}

// single is a service with one of its nodes.
func single(s registry.Service, n registry.Node) registry.Service {
	s.Nodes = []registry.Node{n}
	return s
}

// equal tells whether there is nothing new.
func equal(a, b registry.Service) bool {
	return reflect.DeepEqual(registry.Normalize(a), registry.Normalize(b))
}
