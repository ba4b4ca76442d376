package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of one registration body. They are far above what anybody sends and
// keep what a caller can make the sidecar hold and work through in bounds.
const (
	maxBody      = 16 << 20 // bytes
	maxNodes     = 10_000
	maxEndpoints = 10_000
	maxDepth     = 32 // of Values within Values
)

// DecodeService reads a registration: a JSON object with Name, Version,
// Metadata, Endpoints and Nodes, keys in any case, unknown keys ignored. The
// result is complete: Name and every node's ID are non-empty and the IDs
// differ, there is at least one node, every Address is without port and
// brackets, every Port is 1 to 65535 (0 with a unix socket), and what was null or absent is empty as
// by [Normalize]. An error is a sentence that names the field and what was
// expected.
func DecodeService(data []byte) (Service, error) {
	return decodeService(data, true)
}

// DecodeNodes reads a body that names nodes to be removed. Only Name and the
// nodes' Id count: everything else may be absent or wrong, and an id may stand
// there twice. The result holds the name and the ids and nothing else.
func DecodeNodes(data []byte) (Service, error) {
	return decodeService(data, false)
}

func decodeService(data []byte, full bool) (Service, error) {
	raw, err := parse(data)
	if err != nil {
		return Service{}, err
	}
	var s Service
	fields := []field{
		{"Name", decodeString(&s.Name)},
		{"Nodes", decodeNodes(&s.Nodes, full)},
	}
	if full {
		fields = append(fields,
			field{"Version", decodeString(&s.Version)},
			field{"Metadata", decodeMetadata(&s.Metadata)},
			field{"Endpoints", decodeEndpoints(&s.Endpoints)})
	}
	if err := decodeObject("", raw, fields); err != nil {
		return Service{}, err
	}
	if s.Name == "" {
		return Service{}, errors.New(`Name: expected a service name, got ""`)
	}
	if len(s.Nodes) == 0 {
		return Service{}, errors.New("Nodes: expected at least one node, got none")
	}
	if full {
		return Normalize(s), uniqueIDs(s.Nodes)
	}
	return s, nil
}

// parse checks that data is one JSON value and nothing else. The standard
// decoder also refuses nesting beyond 10,000 levels.
func parse(data []byte) (json.RawMessage, error) {
	if len(data) > maxBody {
		return nil, fmt.Errorf("body: expected at most %d bytes, got %d", maxBody, len(data))
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("body: expected a JSON object, got nothing")
	}
	if !utf8.Valid(data) {
		// RFC 8259 section 8.1. The decoder would put U+FFFD in their place
		// and so register a name that nobody asked for.
		return nil, errors.New("body: expected JSON in UTF-8, got other bytes")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("body: expected one JSON object: byte %d: %w", syntax.Offset, err)
		}
		return nil, fmt.Errorf("body: expected one JSON object: %w", err)
	}
	return raw, nil
}

func decodeNodes(to *[]Node, full bool) decoder {
	return decodeArray("nodes", maxNodes, func(path string, raw json.RawMessage) error {
		var n Node
		var err error
		if full {
			n, err = decodeNode(path, raw)
		} else {
			err = decodeObject(path, raw, []field{{"Id", decodeString(&n.ID)}})
		}
		if err != nil {
			return err
		}
		if n.ID == "" {
			return fmt.Errorf(`%s.Id: expected a node id, got ""`, path)
		}
		*to = append(*to, n)
		return nil
	})
}

func decodeNode(path string, raw json.RawMessage) (Node, error) {
	var n Node
	var address string
	var port json.Number
	err := decodeObject(path, raw, []field{
		{"Id", decodeString(&n.ID)},
		{"Address", decodeString(&address)},
		{"Port", decodeNumber(&port)},
		{"Metadata", decodeMetadata(&n.Metadata)},
	})
	if err != nil {
		return Node{}, err
	}
	host, inAddress, err := splitAddress(address)
	if err != nil {
		return Node{}, fmt.Errorf("%s.Address: %w", path, err)
	}
	n.Address = host
	if strings.HasPrefix(host, UnixPrefix) {
		if p := port.String(); p != "" && p != "0" {
			return Node{}, fmt.Errorf("%s.Port: expected none with a unix socket, got %s", path, clip(p))
		}
		return n, nil
	}
	n.Port, err = choosePort(port.String(), inAddress)
	if err != nil {
		return Node{}, fmt.Errorf("%s.Port: %w", path, err)
	}
	return n, nil
}

func uniqueIDs(nodes []Node) error {
	first := make(map[string]int, len(nodes))
	for i, n := range nodes {
		if j, twice := first[n.ID]; twice {
			return fmt.Errorf("Nodes[%d].Id: expected an id of its own, got %q as in Nodes[%d]", i, clip(n.ID), j)
		}
		first[n.ID] = i
	}
	return nil
}

func decodeEndpoints(to *[]Endpoint) decoder {
	return decodeArray("endpoints", maxEndpoints, func(path string, raw json.RawMessage) error {
		var e Endpoint
		err := decodeObject(path, raw, []field{
			{"Name", decodeString(&e.Name)},
			{"Request", decodeValue(&e.Request, 0)},
			{"Response", decodeValue(&e.Response, 0)},
			{"Metadata", decodeMetadata(&e.Metadata)},
		})
		*to = append(*to, e)
		return err
	})
}

func decodeValue(to **Value, depth int) decoder {
	return func(path string, raw json.RawMessage) error {
		if depth >= maxDepth {
			return fmt.Errorf("%s: expected values nested at most %d deep", path, maxDepth)
		}
		v := new(Value)
		err := decodeObject(path, raw, []field{
			{"Name", decodeString(&v.Name)},
			{"Type", decodeString(&v.Type)},
			{"Values", decodeArray("values", maxEndpoints, func(path string, raw json.RawMessage) error {
				var child *Value
				err := decodeValue(&child, depth+1)(path, raw)
				v.Values = append(v.Values, child)
				return err
			})},
		})
		*to = v
		return err
	}
}

func decodeMetadata(to *map[string]string) decoder {
	return func(path string, raw json.RawMessage) error {
		if kind := kindOf(raw); kind != "an object" {
			return mismatch(path, "an object of strings", kind)
		}
		var values map[string]json.RawMessage
		if err := json.Unmarshal(raw, &values); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(values) == 0 {
			return nil
		}
		*to = make(map[string]string, len(values))
		for _, key := range slices.Sorted(maps.Keys(values)) {
			var value string
			if string(values[key]) != "null" {
				if err := decodeString(&value)(path+"."+clip(key), values[key]); err != nil {
					return err
				}
			}
			(*to)[key] = value
		}
		return nil
	}
}
