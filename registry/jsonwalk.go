package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// The decoders below do what json.Unmarshal does, but their errors say which
// element of which array was wrong, which json.UnmarshalTypeError does not.

// decoder reads one JSON value, which stands at path, into a variable.
type decoder func(path string, raw json.RawMessage) error

// field is a key of an object and what reads its value.
type field struct {
	name   string
	decode decoder
}

// decodeObject hands the values of an object to their fields. Keys match in
// any case, as in encoding/json; null counts as absent. A key that is there
// twice is an error: two programs would read two different things.
func decodeObject(path string, raw json.RawMessage, fields []field) error {
	if kind := kindOf(raw); kind != "an object" {
		return mismatch(path, "an object", kind)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	seen := make([]bool, len(fields))
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		name, _ := key.(string)
		for i, f := range fields {
			if !strings.EqualFold(f.name, name) {
				continue
			}
			at := join(path, f.name)
			if seen[i] {
				return fmt.Errorf("%s: expected once, got it twice", at)
			}
			seen[i] = true
			if string(value) == "null" {
				break
			}
			if err := f.decode(at, value); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// decodeArray hands the elements of an array to each, at most limit of them.
func decodeArray(what string, limit int, each decoder) decoder {
	return func(path string, raw json.RawMessage) error {
		if kind := kindOf(raw); kind != "an array" {
			return mismatch(path, "an array", kind)
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for i := 0; dec.More(); i++ {
			if i == limit {
				return fmt.Errorf("%s: expected at most %d %s, got more", path, limit, what)
			}
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if err := each(fmt.Sprintf("%s[%d]", path, i), value); err != nil {
				return err
			}
		}
		return nil
	}
}

func decodeString(to *string) decoder {
	return func(path string, raw json.RawMessage) error {
		if kind := kindOf(raw); kind != "a string" {
			return mismatch(path, "a string", kind)
		}
		if err := json.Unmarshal(raw, to); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
}

func decodeNumber(to *json.Number) decoder {
	return func(path string, raw json.RawMessage) error {
		if kind := kindOf(raw); kind != "a number" {
			return mismatch(path, "a number", kind)
		}
		*to = json.Number(raw)
		return nil
	}
}

// kindOf names the kind of a valid JSON value.
func kindOf(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// mismatch says "Nodes[0].Port: expected a number, got string".
func mismatch(path, want, kind string) error {
	if path == "" {
		path = "body"
	}
	kind = strings.TrimPrefix(strings.TrimPrefix(kind, "an "), "a ")
	return fmt.Errorf("%s: expected %s, got %s", path, want, kind)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// clip shortens foreign text so that an error stays a sentence.
func clip(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
