package static

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/micro/sidecar/internal/suggest"
	"github.com/micro/sidecar/registry"
)

const (
	maxNodes = 100_000 // in the file
	maxDepth = 100     // of the file's values
)

// service is one version of a service in the file.
type service struct {
	registry.Service // its Nodes are those with an address
	lookups          []lookup
}

// lookup is a node, or several, that DNS knows.
type lookup struct {
	question
	id       string // what its nodes' ids begin with
	metadata map[string]string
}

// question is what DNS is asked.
type question struct {
	name string
	srv  bool
	port int // of the nodes; with srv the answer has it
}

// parse reads the file. JSON is YAML, too. An error names the line.
func parse(text []byte) ([]*service, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("expected at most %d bytes", maxFile)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if !strings.HasPrefix(text, "line ") { // it leaves out the first
			text = "line 1: " + text
		}
		return nil, errors.New(text)
	}
	if len(doc.Content) == 0 {
		return nil, errors.New("expected services: and a list, got nothing")
	}
	if err := plain(&doc, 0); err != nil {
		return nil, err
	}
	f, err := fieldsOf(doc.Content[0], "the file", "services")
	if err != nil {
		return nil, err
	}
	list, err := listOf(f["services"], doc.Content[0], "services")
	if err != nil {
		return nil, err
	}
	p := parser{ids: map[[2]string]int{}, versions: map[[2]string]int{}}
	for _, n := range list {
		s, err := p.service(n)
		if err != nil {
			return nil, err
		}
		p.services = append(p.services, s)
	}
	return p.services, nil
}

// plain refuses what makes small files large, or deep.
func plain(n *yaml.Node, depth int) error {
	if n.Kind == yaml.AliasNode {
		return wrong(n, "", "a value, got an alias (*%.64s)", n.Value)
	}
	if depth > maxDepth {
		return wrong(n, "", "values nested at most %d deep", maxDepth)
	}
	for _, child := range n.Content {
		if err := plain(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// parser is the state of one reading.
type parser struct {
	services      []*service
	ids, versions map[[2]string]int // the line where it stands first
}

func (p *parser) service(n *yaml.Node) (*service, error) {
	f, err := fieldsOf(n, "a service", "name", "version", "metadata", "endpoints", "nodes")
	if err != nil {
		return nil, err
	}
	s := &service{}
	if s.Name, err = textOf(f["name"], "name"); err != nil {
		return nil, err
	}
	if s.Name == "" {
		return nil, wrong(n, "name", "the service's name, got none")
	}
	if s.Version, err = textOf(f["version"], "version"); err != nil {
		return nil, err
	}
	if s.Metadata, err = metadataOf(f["metadata"]); err != nil {
		return nil, err
	}
	if s.Endpoints, err = endpointsOf(f["endpoints"]); err != nil {
		return nil, err
	}
	if line, twice := p.versions[[2]string{s.Name, s.Version}]; twice {
		return nil, wrong(n, "", "each version of a service once: %q, version %q, stands in line %d, too", s.Name, s.Version, line)
	}
	p.versions[[2]string{s.Name, s.Version}] = n.Line
	nodes, err := listOf(f["nodes"], n, "nodes")
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if len(p.ids) == maxNodes {
			return nil, wrong(node, "", "at most %d nodes in the file", maxNodes)
		}
		id, err := s.node(node)
		if err != nil {
			return nil, err
		}
		if line, twice := p.ids[[2]string{s.Name, id}]; twice {
			return nil, wrong(node, "id", "an id of its own, got %q as in line %d", id, line)
		}
		p.ids[[2]string{s.Name, id}] = node.Line
	}
	return s, nil
}

// node adds a node to s and returns its id.
func (s *service) node(n *yaml.Node) (id string, err error) {
	f := map[string]*yaml.Node{"address": n} // a text is an address
	if n.Kind != yaml.ScalarNode {
		if f, err = fieldsOf(n, "a node", "id", "address", "port", "dns", "srv", "metadata"); err != nil {
			return "", err
		}
	}
	text := map[string]string{}
	given := 0
	for _, key := range []string{"id", "address", "port", "dns", "srv"} {
		if text[key], err = textOf(f[key], key); err != nil {
			return "", err
		}
		if f[key] != nil && key != "id" && key != "port" {
			given++
		}
	}
	if given != 1 {
		return "", wrong(n, "", "address, dns or srv: one of them")
	}
	if f["port"] != nil && f["address"] == nil {
		return "", wrong(f["port"], "port", "none beside dns (it stands in NAME:PORT) or srv (the answer has it)")
	}
	metadata, err := metadataOf(f["metadata"])
	if err != nil {
		return "", err
	}
	if f["address"] != nil {
		node, err := nodeOf(text["id"], text["address"], text["port"])
		if err != nil {
			return "", fmt.Errorf("line %d: %w", n.Line, err)
		}
		if node.ID == "" {
			node.ID = s.Name + "-" + node.HostPort()
		}
		node.Metadata = metadata
		s.Nodes = append(s.Nodes, node)
		return node.ID, nil
	}
	q, err := questionOf(text["dns"], text["srv"])
	if err != nil {
		return "", fmt.Errorf("line %d: %w", n.Line, err)
	}
	l := lookup{question: q, id: text["id"], metadata: metadata}
	if l.id == "" {
		l.id = s.Name
	}
	s.lookups = append(s.lookups, l)
	return "dns " + l.id + " " + q.name + strconv.Itoa(q.port), nil // no node has this id, but their ids must differ
}

// nodeOf checks an address as a registration over HTTP is checked.
func nodeOf(id, address, port string) (registry.Node, error) {
	fields := map[string]any{"Id": "x", "Address": address}
	if port != "" {
		fields["Port"] = number(port)
	}
	body, err := json.Marshal(map[string]any{"Name": "x", "Nodes": []any{fields}})
	if err != nil {
		return registry.Node{}, err
	}
	s, err := registry.DecodeService(body)
	if err != nil {
		return registry.Node{}, errors.New(strings.ToLower(strings.TrimPrefix(err.Error(), "Nodes[0].")))
	}
	node := s.Nodes[0]
	node.ID = id
	return node, nil
}

// number is text as a JSON number, where it is one that a port can be.
func number(text string) any {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return n
	}
	return text
}

func questionOf(dns, srv string) (question, error) {
	if srv != "" {
		if _, err := nodeOf("", srv, "1"); err != nil || strings.Contains(srv, ":") {
			return question{}, fmt.Errorf("srv: expected a name such as _http._tcp.greeter.internal, got %.100q", srv)
		}
		return question{name: srv, srv: true}, nil
	}
	host, port, err := net.SplitHostPort(dns)
	if err != nil {
		return question{}, fmt.Errorf("dns: expected NAME:PORT, got %.100q", dns)
	}
	node, err := nodeOf("", host, port)
	if err != nil {
		return question{}, fmt.Errorf("dns: expected NAME:PORT, got %.100q: %w", dns, err)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return question{}, fmt.Errorf("dns: expected a name, got the IP address %s: write it as address", host)
	}
	return question{name: host, port: node.Port}, nil
}

// fieldsOf returns the values of an object by key, in lower case. Unknown keys
// are refused.
func fieldsOf(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, "", "%s as keys and values (%s)", what, strings.Join(known, ", "))
	}
	fields := map[string]*yaml.Node{}
	for i := 0; i < len(n.Content); i += 2 {
		key := strings.ToLower(n.Content[i].Value)
		if !slices.Contains(known, key) || n.Content[i].Kind != yaml.ScalarNode {
			near := ""
			if best := suggest.Nearest(key, known); best != "" {
				near = " (did you mean " + best + "?)"
			}
			return nil, fmt.Errorf("line %d: unknown key %.64q in %s%s: expected %s", n.Content[i].Line, n.Content[i].Value, what, near, strings.Join(known, ", "))
		}
		if fields[key] != nil {
			return nil, wrong(n.Content[i], key, "it once, got it in line %d, too", fields[key].Line)
		}
		fields[key] = n.Content[i+1]
	}
	return fields, nil
}

// textOf returns a text, or a number or the like as it is written.
func textOf(n *yaml.Node, field string) (string, error) {
	if n == nil || n.Tag == "!!null" {
		return "", nil
	}
	if n.Kind != yaml.ScalarNode {
		return "", wrong(n, field, "a text")
	}
	return n.Value, nil
}

func listOf(n, parent *yaml.Node, field string) ([]*yaml.Node, error) {
	if n == nil {
		return nil, wrong(parent, field, "a list, got none (an empty one is [])")
	}
	if n.Kind != yaml.SequenceNode {
		return nil, wrong(n, field, "a list")
	}
	return n.Content, nil
}

func metadataOf(n *yaml.Node) (map[string]string, error) {
	if n == nil || n.Tag == "!!null" {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, "metadata", "keys and values")
	}
	metadata := make(map[string]string, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key, err := textOf(n.Content[i], "metadata")
		if err != nil {
			return nil, err
		}
		if _, twice := metadata[key]; twice {
			return nil, wrong(n.Content[i], "metadata", "the key %.64q once", key)
		}
		if metadata[key], err = textOf(n.Content[i+1], "metadata."+key); err != nil {
			return nil, err
		}
	}
	return metadata, nil
}

// endpointsOf reads endpoints in the form that a registration over HTTP has.
func endpointsOf(n *yaml.Node) ([]registry.Endpoint, error) {
	if n == nil {
		return nil, nil
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return nil, wrong(n, "endpoints", "a list: %v", err)
	}
	body, err := json.Marshal(map[string]any{
		"Name": "x", "Endpoints": value, "Nodes": []any{map[string]any{"Id": "x", "Address": "x", "Port": 1}},
	})
	if err != nil { // a key that is not a text
		return nil, wrong(n, "endpoints", "what JSON can hold: %v", err)
	}
	s, err := registry.DecodeService(body)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	return s.Endpoints, nil
}

func wrong(n *yaml.Node, field, format string, args ...any) error {
	if field != "" {
		field += ": "
	}
	return fmt.Errorf("line %d: %sexpected %s", n.Line, field, fmt.Sprintf(format, args...))
}
