package consul

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/micro/sidecar/registry"
)

// go-micro keeps what Consul has no field for in tags: a letter, a hyphen, and
// zlib data in lower-case hex. Older versions wrote the letter, "=" and the
// plain text. s- is ours, since go-micro drops the metadata of a service; its
// readers pass over letters that they do not know.
const (
	metadataTag = "t" // {"key":"value"} of the node, a tag each
	endpointTag = "e" // an endpoint as JSON
	versionTag  = "v" // the version as it is
	serviceTag  = "s" // the metadata of the service as one JSON object
)

// Limits of what is unpacked from one tag, from all tags of a node, and of
// the nesting of an endpoint's values.
const (
	maxTag      = 256 << 10
	maxUnpacked = 4 << 20
	maxValues   = 64
)

// content is what the tags of a service say.
type content struct {
	version   string
	node      map[string]string
	service   map[string]string
	endpoints []registry.Endpoint
	ours      bool // at least one tag was written by go-micro or by us
}

// encodeTags returns the tags of a node, always the same for the same node.
func encodeTags(s registry.Service, n registry.Node) ([]string, error) {
	var tags []string
	for _, key := range slices.Sorted(maps.Keys(n.Metadata)) {
		tag, err := packJSON(metadataTag, map[string]string{key: n.Metadata[key]})
		if err != nil {
			return nil, err
		}
		tags = append(tags, tag)
	}
	for _, e := range s.Endpoints {
		tag, err := packJSON(endpointTag, e)
		if err != nil {
			return nil, err
		}
		tags = append(tags, tag)
	}
	if len(s.Metadata) > 0 {
		tag, err := packJSON(serviceTag, s.Metadata)
		if err != nil {
			return nil, err
		}
		tags = append(tags, tag)
	}
	version, err := pack(versionTag, []byte(s.Version))
	return append(tags, version), err
}

func packJSON(kind string, value any) (string, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	return pack(kind, text)
}

func pack(kind string, text []byte) (string, error) {
	if len(text) > maxTag {
		return "", errors.New("metadata or an endpoint is too long for Consul")
	}
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return kind + "-" + hex.EncodeToString(packed.Bytes()), nil
}

// decodeTags reads the tags of a service, whoever wrote it. Tags that are not
// ours are passed over. Of metadata and endpoints in both the old and the new
// form, as go-micro once wrote them side by side, the new one counts.
func decodeTags(tags []string) content {
	var packed, plain content
	budget := maxUnpacked
	for _, tag := range tags {
		if len(tag) < 2 {
			continue
		}
		kind, text := tag[:1], tag[2:]
		if !strings.Contains(metadataTag+endpointTag+versionTag+serviceTag, kind) {
			continue
		}
		switch tag[1] {
		case '-':
			if unpacked, ok := unpack(text, min(maxTag, budget)); ok {
				budget -= len(unpacked)
				packed.read(kind, unpacked)
			}
		case '=':
			if len(text) <= min(maxTag, budget) {
				budget -= len(text)
				plain.read(kind, []byte(text))
			}
		}
	}
	if !packed.ours {
		return plain
	}
	return packed
}

// read takes in the text of one tag.
func (c *content) read(kind string, text []byte) {
	switch kind {
	case versionTag:
		c.version, c.ours = string(text), true
	case metadataTag:
		c.ours = readMap(&c.node, text) || c.ours
	case serviceTag:
		c.ours = readMap(&c.service, text) || c.ours
	case endpointTag:
		var e *registry.Endpoint
		if json.Unmarshal(text, &e) == nil && e != nil {
			e.Request, e.Response = tidy(e.Request, 0), tidy(e.Response, 0)
			c.endpoints = append(c.endpoints, *e)
			c.ours = true
		}
	}
}

func readMap(to *map[string]string, text []byte) bool {
	var pairs map[string]string
	if json.Unmarshal(text, &pairs) != nil || pairs == nil {
		return false
	}
	if *to == nil {
		*to = make(map[string]string, len(pairs))
	}
	maps.Copy(*to, pairs)
	return true
}

func unpack(digits string, limit int) ([]byte, bool) {
	packed, err := hex.DecodeString(digits)
	if err != nil {
		return nil, false
	}
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, false
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil || len(text) > limit {
		return nil, false
	}
	return text, true
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
