package mdns

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/micro/sidecar/registry"
)

// EncodeText is a node's text.
func EncodeText(t testing.TB, service, version string) []string {
	t.Helper()
	parts, err := encodeText(text{Service: service, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func FuzzHear(f *testing.F) {
	for _, rr := range [][]dns.RR{listing("a", "micro.")} {
		packet, err := answerTo(0, nil, rr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	s := single(service("a", "1"), service("a", "1").Nodes[0])
	rr, err := records(s, s.Nodes[0], "micro.", maxTTL)
	if err != nil {
		f.Fatal(err)
	}
	packet, err := answerTo(0, nil, rr)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet)
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := new(dns.Msg)
		if m.Unpack(packet) != nil {
			return
		}
		for name, e := range hear(m, "micro.").nodes {
			if e.service.Name == "" || e.node().ID == "" || e.ttl > 0 && registry.CheckNode(e.node()) != nil {
				t.Errorf("%q: %+v", name, e)
			}
		}
	})
}
