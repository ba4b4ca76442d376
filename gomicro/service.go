package gomicro

import (
	"net"
	"reflect"
	"strconv"
	"strings"

	micro "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/registry"
)

// toMicro makes go-micro's service of ours, with one node: of several, some of
// go-micro's registries would register the first alone. Nothing is shared with
// s, since go-micro's memory registry keeps what it is given.
func toMicro(s registry.Service, n registry.Node) *micro.Service {
	out := &micro.Service{
		Name: s.Name, Version: s.Version, Metadata: copyOf(s.Metadata),
		Nodes: []*micro.Node{{Id: n.ID, Address: n.HostPort(), Metadata: copyOf(n.Metadata)}},
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, &micro.Endpoint{
			Name: e.Name, Metadata: copyOf(e.Metadata), Request: toValue(e.Request), Response: toValue(e.Response),
		})
	}
	return out
}

// copyOf never returns nil: go-micro's writers index what they are given.
func copyOf(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func toValue(v *registry.Value) *micro.Value {
	if v == nil {
		return nil
	}
	out := &micro.Value{Name: v.Name, Type: v.Type}
	for _, part := range v.Values {
		out.Values = append(out.Values, toValue(part))
	}
	return out
}

// maxDepth bounds how deep a value is followed: Go's types may be recursive.
const maxDepth = 32

func fromValue(v *micro.Value, depth int) *registry.Value {
	if v == nil || depth > maxDepth || v.Name == "" && v.Type == "" && len(v.Values) == 0 {
		return nil // the memory registry makes an empty one of none
	}
	out := &registry.Value{Name: v.Name, Type: v.Type}
	for _, part := range v.Values {
		if part := fromValue(part, depth+1); part != nil {
			out.Values = append(out.Values, part)
		}
	}
	return out
}

// fromMicro makes ours of what go-micro answered for name: one a version, in
// the order that the port promises. Nodes that nobody could call are passed
// over; odd is told why. A service without usable nodes is one Service without
// nodes, nothing at all is nil.
func fromMicro(name string, services []*micro.Service, odd func(node, why string)) []registry.Service {
	var out []registry.Service
	at := map[string]int{}
	seen := map[string]bool{}
	for _, s := range services {
		if s == nil || s.Name != name { // etcd's keys are not always of one service
			continue
		}
		i, known := at[s.Version]
		if !known {
			i = len(out)
			at[s.Version] = i
			out = append(out, registry.Service{Name: name, Version: s.Version, Metadata: s.Metadata, Endpoints: fromEndpoints(s.Endpoints)})
		}
		for _, n := range s.Nodes {
			node, why := fromNode(n)
			switch {
			case why != "":
				odd(node.ID, why)
			case !seen[node.ID]:
				seen[node.ID] = true
				out[i].Nodes = append(out[i].Nodes, node)
			}
		}
	}
	registry.Sort(out)
	return usable(out)
}

// usable leaves versions without nodes out, unless there is nothing else.
func usable(services []registry.Service) []registry.Service {
	var out []registry.Service
	for _, s := range services {
		if len(s.Nodes) > 0 {
			out = append(out, s)
		}
	}
	if len(out) == 0 && len(services) > 0 {
		return services[len(services)-1:]
	}
	return out
}

func fromEndpoints(all []*micro.Endpoint) []registry.Endpoint {
	var out []registry.Endpoint
	for _, e := range all {
		if e == nil {
			continue
		}
		metadata := e.Metadata
		if len(metadata) == 0 {
			metadata = nil
		}
		out = append(out, registry.Endpoint{
			Name: e.Name, Metadata: metadata, Request: fromValue(e.Request, 0), Response: fromValue(e.Response, 0),
		})
	}
	return out
}

// fromNode returns ours, or why it is of no use.
func fromNode(n *micro.Node) (registry.Node, string) {
	if n == nil {
		return registry.Node{}, "it is nothing"
	}
	node := registry.Node{ID: n.Id, Address: n.Address, Metadata: n.Metadata}
	if n.Id == "" {
		return node, "it has no id"
	}
	if !strings.HasPrefix(n.Address, registry.UnixPrefix) {
		host, text, err := net.SplitHostPort(n.Address)
		port, bad := strconv.Atoi(text)
		if err != nil || bad != nil {
			return node, "its address is no host:port: " + strconv.Quote(n.Address)
		}
		node.Address, node.Port = host, port
	}
	if err := registry.CheckNode(node); err != nil {
		return node, err.Error()
	}
	return node, ""
}

// find returns the version and node with the id.
func find(services []registry.Service, id string) (registry.Service, registry.Node, bool) {
	for _, s := range services {
		for _, n := range s.Nodes {
			if n.ID == id {
				return s, n, true
			}
		}
	}
	return registry.Service{}, registry.Node{}, false
}

// behindCache returns the registry behind go-micro's cache, which remembers for
// seconds that a service is not there: the sidecar keeps what it read itself.
func behindCache(r micro.Registry) micro.Registry {
	for range 8 { // a cache of a cache
		if _, ok := r.(interface{ Stop() }); !ok || r.String() != "cache" {
			return r
		}
		v := reflect.ValueOf(r)
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			return r
		}
		field := v.Elem().FieldByName("Registry")
		if !field.IsValid() || !field.CanInterface() {
			return r
		}
		inner, ok := field.Interface().(micro.Registry)
		if !ok || inner == nil {
			return r
		}
		r = inner
	}
	return r
}
