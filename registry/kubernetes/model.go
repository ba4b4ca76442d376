package kubernetes

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/micro/sidecar/internal/picture"
	"github.com/micro/sidecar/registry"
)

// Annotations of a Service. Any other that begins with annotationPrefix is
// metadata of its nodes.
const (
	annotationPrefix  = "micro.dev/"
	nameAnnotation    = annotationPrefix + "service-name"
	versionAnnotation = annotationPrefix + "version"
	portAnnotation    = annotationPrefix + "port"

	versionLabel = "app.kubernetes.io/version"
	serviceLabel = "kubernetes.io/service-name" // of an EndpointSlice
)

// model makes services of the API's objects. Its methods are for two streams
// of changes at once.
type model struct {
	picture *picture.Picture
	all     bool // namespaces

	mu       sync.Mutex
	services map[string]*service                  // by key
	slices   map[string]map[string]*endpointSlice // by the service's key, then their own
	owner    map[string]string                    // key of a slice to that of its service
	named    map[string]map[string]bool           // a service's name here to the keys of those that have it
	synced   [2]bool                              // services, slices
}

func newModel(p *picture.Picture, all bool) *model {
	return &model{
		picture: p, all: all, services: map[string]*service{}, slices: map[string]map[string]*endpointSlice{},
		owner: map[string]string{}, named: map[string]map[string]bool{},
	}
}

// replaceServices takes all Services in.
func (m *model) replaceServices(all []*service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.services, m.named = map[string]*service{}, map[string]map[string]bool{}
	for _, s := range all {
		m.add(s)
	}
	m.synced[0] = true
	m.replace()
}

// replaceSlices takes all EndpointSlices in.
func (m *model) replaceSlices(all []*endpointSlice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slices, m.owner = map[string]map[string]*endpointSlice{}, map[string]string{}
	for _, s := range all {
		m.attach(s)
	}
	m.synced[1] = true
	m.replace()
}

// replace makes all of the picture, once both kinds are known.
func (m *model) replace() {
	if !m.synced[0] || !m.synced[1] {
		return
	}
	all := map[string][]registry.Service{}
	for name := range m.named {
		all[name] = m.build(name)
	}
	m.picture.Replace(all)
}

// setService takes a Service in, or out.
func (m *model) setService(s *service, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := map[string]bool{}
	if before := m.services[s.key()]; before != nil {
		name := m.name(before)
		changed[name] = true
		delete(m.services, s.key())
		delete(m.named[name], s.key())
		if len(m.named[name]) == 0 {
			delete(m.named, name)
		}
	}
	if !gone && m.add(s) {
		changed[m.name(s)] = true
	}
	m.tell(changed)
}

// setSlice takes an EndpointSlice in, or out.
func (m *model) setSlice(s *endpointSlice, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := map[string]bool{}
	note := func(key string) {
		if owner := m.services[key]; owner != nil {
			changed[m.name(owner)] = true
		}
	}
	if key, there := m.owner[s.key()]; there {
		delete(m.owner, s.key())
		delete(m.slices[key], s.key())
		if len(m.slices[key]) == 0 {
			delete(m.slices, key)
		}
		note(key)
	}
	if !gone {
		m.attach(s)
		note(m.owner[s.key()])
	}
	m.tell(changed)
}

func (m *model) tell(changed map[string]bool) {
	if !m.synced[0] || !m.synced[1] {
		return
	}
	for name := range changed {
		m.picture.Set(name, m.build(name))
	}
}

// add keeps a Service, unless it is none to be called.
func (m *model) add(s *service) bool {
	if s.Spec.Type == "ExternalName" || s.key() == "default/kubernetes" {
		return false
	}
	m.services[s.key()] = s
	name := m.name(s)
	if m.named[name] == nil {
		m.named[name] = map[string]bool{}
	}
	m.named[name][s.key()] = true
	return true
}

// attach keeps a slice.
func (m *model) attach(s *endpointSlice) {
	owner := s.Labels[serviceLabel]
	if owner == "" {
		return
	}
	key := s.Namespace + "/" + owner
	if m.slices[key] == nil {
		m.slices[key] = map[string]*endpointSlice{}
	}
	m.slices[key][s.key()] = s
	m.owner[s.key()] = key
}

// name is what a Service is called here: as its annotation says, else its own
// name, with its namespace where there are several.
func (m *model) name(s *service) string {
	name := s.Name
	if m.all {
		name += "." + s.Namespace
	}
	return cmp.Or(s.Annotations[nameAnnotation], name)
}

// build makes the versions of the service of that name, of which there may be
// several Services; none when there is no Service.
func (m *model) build(name string) []registry.Service {
	var versions []registry.Service
	for _, key := range slices.Sorted(maps.Keys(m.named[name])) {
		s := m.services[key]
		made := registry.Service{Name: name, Version: cmp.Or(s.Annotations[versionAnnotation], s.Labels[versionLabel]), Nodes: m.nodes(s)}
		i := slices.IndexFunc(versions, func(v registry.Service) bool { return v.Version == made.Version })
		if i < 0 {
			versions = append(versions, made)
			continue
		}
		versions[i].Nodes = append(versions[i].Nodes, made.Nodes...)
	}
	some := slices.DeleteFunc(slices.Clone(versions), func(v registry.Service) bool { return len(v.Nodes) == 0 })
	if len(some) == 0 && len(versions) > 0 {
		some = versions[:1]
	}
	registry.Sort(some)
	return some
}

// nodes returns a Service's endpoints that are ready.
func (m *model) nodes(s *service) []registry.Node {
	// A pod with an IPv4 and an IPv6 address stands in two slices: the first is used.
	parts := slices.SortedFunc(maps.Values(m.slices[s.key()]), func(a, b *endpointSlice) int {
		return cmp.Or(cmp.Compare(a.AddressType, b.AddressType), cmp.Compare(a.Name, b.Name))
	})
	seen := map[string]bool{}
	var nodes []registry.Node
	for _, part := range parts {
		p, ok := choosePort(part.Ports, s.Annotations[portAnnotation])
		if !ok {
			continue
		}
		for _, e := range part.Endpoints {
			if len(e.Addresses) == 0 || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			n := registry.Node{Address: e.Addresses[0], Port: p.Port, Metadata: metadata(s, p, e)}
			n.ID = net.JoinHostPort(n.Address, strconv.Itoa(n.Port))
			if registry.CheckNode(n) != nil { // an API server lets nobody write that
				continue
			}
			if e.TargetRef != nil && e.TargetRef.Name != "" {
				n.ID = e.TargetRef.Name
			}
			if s.Annotations[nameAnnotation] != "" { // which others may have, too
				n.ID = s.Name + "." + n.ID
			}
			if !seen[n.ID] {
				seen[n.ID] = true
				nodes = append(nodes, n)
			}
		}
	}
	return nodes
}

// choosePort chooses the port that was asked for by name or number, else one
// named http or grpc, else the first.
func choosePort(ports []port, asked string) (port, bool) {
	rank := func(p port) int {
		switch name, _, _ := strings.Cut(p.Name, "-"); {
		case p.Protocol != "" && p.Protocol != "TCP", p.Port <= 0, p.Port > 65535:
			return 0
		case asked != "":
			if p.Name == asked || strconv.Itoa(p.Port) == asked {
				return 1
			}
			return 0
		case name == "http" || name == "grpc":
			return 2
		}
		return 1
	}
	best := port{}
	for _, p := range ports {
		if rank(p) > rank(best) {
			best = p
		}
	}
	return best, rank(best) > 0
}

// metadata says how a node is called: as the port's appProtocol has it, and
// the Service's annotations, which have the last word.
func metadata(s *service, p port, e endpoint) map[string]string {
	md := map[string]string{}
	switch strings.TrimPrefix(p.AppProtocol, "kubernetes.io/") {
	case "grpc":
		md["protocol"] = "grpc"
	case "h2c":
		md["protocol"], md["h2c"] = "http", "true"
	case "http", "ws":
		md["protocol"] = "http"
	case "https", "wss":
		md["protocol"], md["secure"] = "http", "true"
	}
	if e.Zone != "" {
		md["zone"] = e.Zone
	}
	for key, value := range s.Annotations {
		if name, ours := strings.CutPrefix(key, annotationPrefix); ours && key != nameAnnotation && key != versionAnnotation && key != portAnnotation {
			md[name] = value
		}
	}
	return md
}
