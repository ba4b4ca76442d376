package consul

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A name or an id stays as it is wherever Consul can hold it, because go-micro
// writes and looks for the plain text. Otherwise it is encoded:
//
//	service name   micro--<hex of name>
//	service ID     micro--<hex of name>-<hex of id>
//
// An agent accepts any text when a service is registered, but its other
// endpoints carry name and id in the path of a URL. There Consul refuses
// characters that do not print, and paths that its router would clean.
// A name that looks encoded is encoded too, which keeps all of it reversible.
const encodedPrefix = "micro--"

// maxName bounds names and ids in bytes: twice that, in hex, still fits into
// the head of a request.
const maxName = 4096

// ownService is the name under which Consul's servers register themselves. A
// user's service of that name must not be taken for them.
const ownService = "consul"

func encodeName(name string) string {
	if addressable(name) && !strings.EqualFold(name, ownService) {
		return name
	}
	return encodedPrefix + hex.EncodeToString([]byte(name))
}

// decodeName returns the name of a service in Consul. What only looks encoded
// is somebody else's and stays as it is.
func decodeName(consulName string) string {
	digits, encoded := strings.CutPrefix(consulName, encodedPrefix)
	if !encoded {
		return consulName
	}
	name, err := hex.DecodeString(digits)
	if err != nil || encodeName(string(name)) != consulName {
		return consulName
	}
	return string(name)
}

// encodeID returns the ID that no other node can have. It is used where the
// plain id cannot be: Consul cannot address it, or the agent holds a node of
// another service with this id, or one whose id differs only in case.
func encodeID(name, id string) string {
	return encodedPrefix + hex.EncodeToString([]byte(name)) + "-" + hex.EncodeToString([]byte(id))
}

// decodeID returns the node id of a service ID of the service called name.
func decodeID(name, consulID string) string {
	digits, ours := strings.CutPrefix(consulID, encodedPrefix+hex.EncodeToString([]byte(name))+"-")
	if !ours {
		return consulID
	}
	id, err := hex.DecodeString(digits)
	if err != nil || encodeID(name, string(id)) != consulID {
		return consulID
	}
	return string(id)
}

// addressable reports whether text can stand in the path of a URL and comes
// out on the other side as it went in.
func addressable(text string) bool {
	if !utf8.ValidString(text) || strings.HasPrefix(text, encodedPrefix) || strings.HasPrefix(text, "/") || strings.Contains(text, "//") {
		return false
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	for segment := range strings.SplitSeq(text, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return !strings.Contains(text, "%") // some versions of Consul decode twice
}

func checkName(what, text string) error {
	if text == "" {
		return fmt.Errorf("%s: expected some text, got none", what)
	}
	if len(text) > maxName {
		return fmt.Errorf("%s: expected at most %d bytes, got %d", what, maxName, len(text))
	}
	return nil
}
