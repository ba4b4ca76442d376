package consul

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// ttlKey holds the time to live in a service's Meta, 0s for none. It tells
// operators what they look at, and makes a changed one a changed registration:
// the agent does not show it anywhere else.
const ttlKey = "micro-ttl"

// What Consul takes in Meta (its agent/structs validation).
const (
	maxMetaPairs = 64
	maxMetaKey   = 128
	maxMetaValue = 512
)

// encodeMeta returns what of a node's metadata Consul takes as Meta, for
// people and for programs that do not read tags. Nothing depends on it.
func encodeMeta(metadata map[string]string, ttl time.Duration) map[string]string {
	meta := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		value := metadata[key]
		if validMetaKey(key) && len(value) <= maxMetaValue && len(meta) < maxMetaPairs-1 {
			meta[key] = value
		}
	}
	meta[ttlKey] = max(ttl, 0).String()
	return meta
}

func validMetaKey(key string) bool {
	// Consul keeps keys that begin with its name for itself.
	if key == "" || len(key) > maxMetaKey || strings.HasPrefix(key, "consul-") || key == ttlKey {
		return false
	}
	for i := range len(key) {
		c := key[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !digit && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
