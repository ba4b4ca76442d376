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
	name  string
	line  int
	items []string
}

// readFile reads the configuration file at path.
func readFile(path string, settings []*setting) ([]fileValue, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	values, err := parseFile(data, settings)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return values, nil
}

// parseFile reads a YAML mapping from settings' names to values. Nothing is
// passed over: an unknown name, a name given twice, or a value of another kind
// is an error, which begins with the number of its line.
func parseFile(data []byte, settings []*setting) ([]fileValue, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("1: the file is larger than %d bytes", maxFile)
	}
	root, err := parseYAML(data)
	if err != nil || root == nil {
		return nil, err
	}
	byName := map[string]*setting{}
	var names []string
	for _, s := range settings {
		if !s.only && s.name != "config" {
			byName[s.name] = s
			names = append(names, s.name)
		}
	}
	var out []fileValue
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			return nil, atLine(key, fmt.Errorf("%s stands in line %d already", key.Value, line))
		}
		seen[key.Value] = key.Line
		if key.Kind != yaml.ScalarNode {
			return nil, atLine(key, errors.New("expected the name of a setting"))
		}
		s, err := findSetting(key.Value, byName, names)
		if err != nil {
			return nil, atLine(key, err)
		}
		items, err := fileItems(value, s)
		if err != nil {
			return nil, atLine(value, fmt.Errorf("%s: %w", key.Value, err))
		}
		out = append(out, fileValue{key.Value, key.Line, items})
	}
	return out, nil
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

// findSetting returns the setting of that name, nil for one without a meaning.
func findSetting(name string, byName map[string]*setting, names []string) (*setting, error) {
	if s, ok := byName[name]; ok {
		return s, nil
	}
	if slices.Contains(meaningless, name) {
		return nil, nil
	}
	return nil, fmt.Errorf("unknown setting %.64q%s", name, suggestion(name, "", names))
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
