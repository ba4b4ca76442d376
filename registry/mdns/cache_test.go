package mdns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

func service(name, id string) registry.Service {
	return registry.Service{Name: name, Nodes: []registry.Node{{ID: id, Address: "10.0.0.1", Port: 1}}}
}

// However much a network says, little is kept, and what is known stays known.
func TestFlood(t *testing.T) {
	c := newCache()
	now := time.Now()
	e := func(size int) *entry { return &entry{service: service("a", "n"), ttl: time.Minute, size: size} }
	for i := range maxCached + 100 {
		c.hear(fmt.Sprint(i), e(100), now)
	}
	if len(c.nodes) != maxCached {
		t.Errorf("%d nodes", len(c.nodes))
	}
	if room, moved := c.hear("7", e(100), now); !room || moved {
		t.Error("no room for a renewal")
	}
	if room, _ := c.hear("7", e(maxCacheMem), now); room {
		t.Error("memory without an end")
	}
	for i := range 2 * maxListed {
		c.list(fmt.Sprint(i))
	}
	if len(c.listed) != maxListed {
		t.Errorf("%d services", len(c.listed))
	}
	for range maxMissed {
		c.asked() // the first finds what was heard
	}
	if len(c.nodes) != maxCached {
		t.Errorf("%d nodes after %d questions", len(c.nodes), maxMissed)
	}
	if lost := c.asked(); len(c.nodes) != 0 || !lost["a"] || c.size != 0 || len(c.services) != 0 || len(c.at) != 0 {
		t.Errorf("%d nodes left of those that did not answer, %v", len(c.nodes), lost)
	}
}

func TestBomb(t *testing.T) {
	parts, err := encodeText(text{Service: "a", Version: strings.Repeat("0", maxText-1000)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := decodeText(parts); err != nil {
		t.Errorf("up to the limit: %v", err)
	}
	if _, err := encodeText(text{Version: strings.Repeat("0", maxText)}); err == nil {
		t.Error("over the limit")
	}
}

func TestLabel(t *testing.T) {
	for _, plain := range []string{"greeter", "go.micro.srv.greeter", "greeter-017da09a-734f-11e5-8136-68a86d0d36b6", "A_b"} {
		if have := label(plain); have != plain {
			t.Errorf("%q became %q", plain, have)
		}
	}
	seen := map[string]string{}
	for _, odd := range []string{"", ".", "a..b", "a b", "ü", "_services", "micro--x", strings.Repeat("x", 64), strings.Repeat("x.", 100) + "x", `a\b`} {
		have := label(odd)
		if !strings.HasPrefix(have, encodedPrefix) || len(have) > 63 || seen[have] != "" {
			t.Errorf("%q became %q", odd, have)
		}
		seen[have] = odd
	}
}
