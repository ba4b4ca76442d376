package etcd

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// go-micro writes a node to <service>/<node id> below its prefix, with a
// hyphen for every slash in either. What does not come out of that as it went
// in has a key that no other node can have, in the same folder, so that
// go-micro finds it all the same:
//
//	service   <service, hyphens for slashes>, or micro--<hex of service> for
//	          what is no folder: . and .., text that is not UTF-8
//	node id   micro--<hex of service>-<hex of node id>
//
// Text that looks encoded is encoded too. All of it is reversible.
const encodedPrefix = "micro--"

// folder returns where the nodes of a service are, without slashes.
func folder(name string) string {
	if name == "." || name == ".." || strings.HasPrefix(name, encodedPrefix) || !utf8.ValidString(name) {
		return encodedPrefix + hex.EncodeToString([]byte(name))
	}
	return hyphened(name)
}

// key returns the key of a node below the prefix.
func key(name, id string) string {
	if plain(name, id) {
		return folder(name) + "/" + id
	}
	return folder(name) + "/" + encodedPrefix + hex.EncodeToString([]byte(name)) + "-" + hex.EncodeToString([]byte(id))
}

// plain reports whether a node is where go-micro would write it.
func plain(name, id string) bool {
	return !strings.Contains(name, "/") && !strings.Contains(id, "/") && id != "." && id != ".." &&
		!strings.HasPrefix(id, encodedPrefix) && utf8.ValidString(name) && utf8.ValidString(id)
}

// decodeKey returns the service and the node that an encoded key is for.
func decodeKey(at string) (name, id string, ok bool) {
	_, leaf, _ := strings.Cut(at, "/")
	digits, ok := strings.CutPrefix(leaf, encodedPrefix)
	if !ok {
		return "", "", false
	}
	nameHex, idHex, _ := strings.Cut(digits, "-")
	nameBytes, err := hex.DecodeString(nameHex)
	idBytes, err2 := hex.DecodeString(idHex)
	name, id = string(nameBytes), string(idBytes)
	return name, id, err == nil && err2 == nil && name != "" && id != "" && !plain(name, id) && key(name, id) == at
}

func hyphened(text string) string { return strings.ReplaceAll(text, "/", "-") }
