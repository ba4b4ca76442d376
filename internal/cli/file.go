package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the configuration file, in bytes.
const maxFile = 1 << 20

// fileValue is one line of the configuration file.
type fileValue struct {
	name  string // of the setting
	line  int
	items []string
}

// fileContent is what the configuration file says.
type fileContent struct {
	values []fileValue
	apps   []fileApp
}

// fileApp is one entry of the list of applications.
type fileApp struct {
	line    int
	values  []fileValue
	command fileValue // its items are nil for an application that runs by itself
}

// readFile reads the configuration file at path.
func readFile(path string, settings []*setting) (*fileContent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	content, err := parseFile(data, settings)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return content, nil
}

// listKey is the name of the list of applications.
const listKey = "applications"

// parseFile reads a YAML mapping from settings' names to values. Nothing is
// passed over: an unknown name, a name given twice, or a value of another kind
// is an error, which begins with the number of its line.
func parseFile(data []byte, settings []*setting) (*fileContent, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("1: the file is larger than %d bytes", maxFile)
	}
	root, err := parseYAML(data)
	if err != nil || root == nil {
		return &fileContent{}, err
	}
	words := vocabulary{settings: map[string]*setting{}, names: []string{listKey}, older: true}
	for _, s := range settings {
		if !s.only && s.name != "config" {
			words.add(s.name, s)
		}
	}
	content := &fileContent{}
	content.values, err = words.read(root, func(key, value *yaml.Node) (bool, error) {
		if key.Value != listKey {
			return false, nil
		}
		content.apps, err = parseApps(value, settings)
		return true, err
	})
	return content, err
}

// vocabulary is which names may stand in a mapping, and what they mean.
type vocabulary struct {
	settings map[string]*setting
	names    []string // to suggest
	older    bool     // names without a meaning, or without one yet, are known
}

// add makes a name known and suggests it.
func (v *vocabulary) add(name string, s *setting) {
	v.settings[name] = s
	v.names = append(v.names, name)
}

// read returns the values that stand in a mapping. special gets each pair
// first and says whether it has read it.
func (v *vocabulary) read(n *yaml.Node, special func(key, value *yaml.Node) (bool, error)) ([]fileValue, error) {
	var out []fileValue
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			return nil, atLine(key, fmt.Errorf("%s stands in line %d already", key.Value, line))
		}
		seen[key.Value] = key.Line
		if key.Kind != yaml.ScalarNode {
			return nil, atLine(key, errors.New("expected the name of a setting"))
		}
		if done, err := special(key, value); err != nil {
			return nil, err
		} else if done {
			continue
		}
		one, err := v.value(key, value)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// value reads one line.
func (v *vocabulary) value(key, value *yaml.Node) (fileValue, error) {
	s, err := v.find(key.Value)
	if err != nil {
		return fileValue{}, atLine(key, err)
	}
	name := key.Value
	if s != nil {
		name = s.name
	}
	items, err := fileItems(value, s)
	if err != nil {
		return fileValue{}, atLine(value, fmt.Errorf("%s: %w", key.Value, err))
	}
	return fileValue{name, key.Line, items}, nil
}

// find returns the setting of that name, nil for one without a meaning.
func (v *vocabulary) find(name string) (*setting, error) {
	if s, ok := v.settings[name]; ok {
		return s, nil
	}
	if v.older && slices.Contains(meaningless, name) {
		return nil, nil
	}
	return nil, fmt.Errorf("unknown setting %.64q%s", name, suggestion(name, "", v.names))
}

// parseYAML returns the one mapping that data holds, nil when it holds nothing
// but comments.
func parseYAML(data []byte) (*yaml.Node, error) {
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, yamlError(err)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, atLine(root, errors.New("expected lines of the form name: value"))
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		return nil, atLine(&more, errors.New("expected one YAML document, not several"))
	case !errors.Is(err, io.EOF):
		return nil, yamlError(err)
	}
	return root, nil
}

// yamlError puts the parser's line number where ours stand.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		return errors.New(rest)
	}
	return errors.New("1: " + text)
}

// fileItems returns the items that stand at a setting and checks them. A list
// may be written as a sequence, metadata as a mapping; a scalar is read as a
// flag is.
func fileItems(value *yaml.Node, s *setting) ([]string, error) {
	var items []string
	switch {
	case s == nil:
		return nil, nil
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		return nil, errors.New("has no value")
	case value.Kind == yaml.ScalarNode:
		items = s.items(value.Value)
	case value.Kind == yaml.SequenceNode && s.list:
		for _, item := range value.Content {
			if item.Kind == yaml.MappingNode && s.noComma {
				joined, err := joinMapping(item)
				if err != nil {
					return nil, err
				}
				items = append(items, joined)
				continue
			}
			if item.Kind != yaml.ScalarNode {
				return nil, errors.New("expected a list of texts")
			}
			items = append(items, item.Value)
		}
	case value.Kind == yaml.MappingNode && s.list:
		for i := 0; i+1 < len(value.Content); i += 2 {
			k, v := value.Content[i], value.Content[i+1]
			if k.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode {
				return nil, errors.New("expected a mapping of texts to texts")
			}
			items = append(items, k.Value+"="+v.Value)
		}
	default:
		return nil, errors.New("expected one value")
	}
	return items, s.set(&Config{}, items)
}

// joinMapping makes KEY=VALUE,… of a mapping, as the flag has it.
func joinMapping(m *yaml.Node) (string, error) {
	var parts []string
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		if k.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode {
			return "", errors.New("expected a mapping of texts to texts")
		}
		parts = append(parts, k.Value+"="+v.Value)
	}
	return joinEscaped(parts), nil
}

// atLine puts the node's line in front of err.
func atLine(n *yaml.Node, err error) error { return fmt.Errorf("%d: %w", n.Line, err) }
