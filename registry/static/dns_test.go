package static_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry/registrytest"
)

// nameServer is a real one, over UDP and TCP on one port.
type nameServer struct {
	addr    string
	servers []*dns.Server

	mu     sync.Mutex
	zone   map[string][]string // "name TYPE" to records
	rcode  int                 // answered to all, when not 0
	asked  map[string]int
	overdo bool // answers do not fit into UDP
}

func serveDNS(t *testing.T) *nameServer {
	t.Helper()
	n := &nameServer{zone: map[string][]string{}, asked: map[string]int{}}
	packets, err := net.ListenPacket("udp", testserver.DeadAddr(t)) // of which TCP can have the port, too
	if err != nil {
		t.Fatal(err)
	}
	n.addr = packets.LocalAddr().String()
	listener, err := testserver.Listen(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: n}, {Listener: listener, Handler: n}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.ActivateAndServe() }) // until Shutdown
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown() // it may be down already
			serving.Wait()
		})
		n.servers = append(n.servers, s)
	}
	return n
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := m.Question[0]
	key := q.Name + " " + dns.TypeToString[q.Qtype]
	n.asked[key]++
	answer := new(dns.Msg)
	answer.SetReply(m)
	answer.Rcode = n.rcode
	records, known := n.zone[key]
	switch {
	case n.rcode != 0:
	case !known && len(n.zone[q.Name+" A"])+len(n.zone[q.Name+" AAAA"]) == 0:
		answer.Rcode = dns.RcodeNameError
	default:
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			answer.Answer = append(answer.Answer, rr)
		}
	}
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp && n.overdo {
		answer.Answer, answer.Truncated = nil, true
	}
	_ = w.WriteMsg(answer) // who asked may be gone
}

func (n *nameServer) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func TestDNS(t *testing.T) {
	server := serveDNS(t)
	server.mu.Lock()
	a, srv := "greeter.internal. A", "_http._tcp.greeter.internal. SRV"
	server.zone[a] = []string{"greeter.internal. 1 IN CNAME g.internal.", "g.internal. 60 IN A 10.0.0.2", "g.internal. 60 IN A 10.0.0.1"}
	server.zone["greeter.internal. AAAA"] = []string{"greeter.internal. 60 IN AAAA 2001:db8::1"}
	server.zone["stays.internal. A"] = []string{"stays.internal. 3600 IN A 10.0.1.1"}
	server.zone[srv] = []string{
		"_http._tcp.greeter.internal. 1 IN SRV 10 5 8081 b.internal.", "_http._tcp.greeter.internal. 1 IN SRV 10 5 8080 a.internal.",
		"_http._tcp.greeter.internal. 1 IN SRV 20 5 8080 backup.internal.",
	}
	server.zone["a.internal. A"] = []string{"a.internal. 1 IN A 10.0.2.1"}
	server.zone["b.internal. A"] = []string{"b.internal. 1 IN A 10.0.2.2"}
	server.zone["backup.internal. A"] = []string{"backup.internal. 1 IN A 10.0.2.3"}
	server.mu.Unlock()
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, `
services:
- name: names
  nodes: [{dns: "greeter.internal:80", metadata: {protocol: http}}, {dns: "stays.internal:81", id: s}, "127.0.0.1:82"]
- name: srv
  nodes: [{srv: _http._tcp.greeter.internal}]
- name: nosuch
  nodes: [{dns: "nosuch.internal:1"}]
`)
	r, out := open(t, path, "nameserver="+server.addr)
	names := func(first string) string { return first + " names-127.0.0.1:82=127.0.0.1:82 " }
	const rest = "names-[2001:db8::1]:80=[2001:db8::1]:80 s-10.0.1.1:81=10.0.1.1:81"
	full := names("names-10.0.0.1:80=10.0.0.1:80 names-10.0.0.2:80=10.0.0.2:80") + rest
	for name, want := range map[string]string{
		"names": full, "srv": "srv-10.0.2.1:8080=10.0.2.1:8080 srv-10.0.2.2:8081=10.0.2.2:8081", "nosuch": "",
	} {
		if have := registrytest.Nodes(t.Context(), r, name); have != want { // Open waited for the answers
			t.Errorf("%s:\n have %s\n want %s", name, have, want)
		}
	}
	if s, err := r.Get(t.Context(), "names"); err != nil || s[0].Nodes[0].Metadata["protocol"] != "http" {
		t.Errorf("metadata: %+v, %v", s, err)
	}

	// What changes is seen when its time to live is over; the rest is not asked for again.
	server.set(func() {
		server.zone[a] = []string{"greeter.internal. 1 IN A 10.0.0.3"}
		server.zone["stays.internal. A"] = nil
	})
	awaitNodes(t, r, "names", names("names-10.0.0.3:80=10.0.0.3:80")+rest)

	// A server that fails, and one that is dead, change nothing.
	server.set(func() { server.rcode = dns.RcodeServerFailure })
	registrytest.Eventually(t, func() string {
		if strings.Count(out.String(), "DNS fails") < 2 {
			return "the log does not tell of it: " + out.String()
		}
		return ""
	})
	if have := registrytest.Nodes(t.Context(), r, "names"); have != names("names-10.0.0.3:80=10.0.0.3:80")+rest {
		t.Errorf("while DNS fails: %s", have)
	}
	// Nothing there is an answer, over TCP, too.
	server.set(func() {
		server.rcode, server.overdo = 0, true
		server.zone[a] = []string{"greeter.internal. 1 IN A 10.0.0.4"}
		delete(server.zone, srv)
	})
	awaitNodes(t, r, "srv", "")
	awaitNodes(t, r, "names", names("names-10.0.0.4:80=10.0.0.4:80")+rest)
	if names, err := r.List(t.Context()); err != nil || fmt.Sprint(names) != "[names nosuch srv]" {
		t.Errorf("List: %v, %v", names, err)
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if n := server.asked["stays.internal. A"]; n != 1 {
		t.Errorf("a name with an hour to live was asked for %d times", n)
	}
}

// A look-up that takes its time does not keep Open, nor Close.
func TestDeadNameServer(t *testing.T) {
	packets, err := net.ListenPacket("udp", testserver.DeadAddr(t)) // of which TCP can have the port, too // never answers
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, "services: [{name: a, nodes: ['127.0.0.1:1', {dns: 'x.internal:1'}]}]")
	r, _ := open(t, path, "nameserver="+packets.LocalAddr().String())
	if have := registrytest.Nodes(t.Context(), r, "a"); have != "a-127.0.0.1:1=127.0.0.1:1" {
		t.Errorf("nodes: %s", have)
	}
}
