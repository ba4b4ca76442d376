package mdns_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/mdns"
	"github.com/micro/sidecar/registry/registrytest"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-micro's sockets and readers stay for good.
		goleak.IgnoreAnyFunction("go-micro.dev/v5/internal/util/mdns.(*Server).recv"),
		goleak.IgnoreAnyFunction("go-micro.dev/v5/internal/util/mdns.(*client).recv"),
		goleak.IgnoreAnyFunction("go-micro.dev/v5/internal/util/mdns.(*Server).probe"),
	)
}

// newDomain returns a domain of its own: tests do not hear each other.
func newDomain() string { return fmt.Sprintf("t%08x", rand.Uint32()) }

func open(t *testing.T, domain, query string) (*mdns.Registry, *testserver.Output) {
	t.Helper()
	out := &testserver.Output{}
	r, err := mdns.Open(&url.URL{Scheme: "mdns", Host: domain, RawQuery: query}, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, out
}

// loopback is the name of the machine's loopback interface.
func loopback(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Name
		}
	}
	t.Fatal("no loopback interface")
	return ""
}

func service(name, id, address string, port int) registry.Service {
	return registry.Service{
		Name: name, Version: "1.0.0", Metadata: map[string]string{"team": "blue"},
		Endpoints: []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "Request", Type: "Request"}}},
		Nodes:     []registry.Node{{ID: id, Address: address, Port: port, Metadata: map[string]string{"protocol": "mucp"}}},
	}
}

func register(t *testing.T, r registry.Registry, s registry.Service, ttl time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Register(ctx, s, ttl); err != nil {
		t.Fatal(err)
	}
}

func awaitNodes(t *testing.T, r registry.Registry, name, want string) {
	t.Helper()
	registrytest.Eventually(t, func() string {
		if have := registrytest.Nodes(t.Context(), r, name); have != want && !(want == "" && strings.Contains(have, "not found")) {
			return "have " + have + ", want " + want
		}
		return ""
	})
}

func TestSuite(t *testing.T) {
	domain, query := newDomain(), "interface="+loopback(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		r, _ := open(t, domain, query)
		return r
	})
}

// One sidecar finds what another has registered, whoever was there first, and
// what is gone goes at once.
func TestTwo(t *testing.T) {
	domain, query := newDomain(), "interface="+loopback(t)
	one, _ := open(t, domain, query)
	early := service("early", "e/1", "10.0.0.1", 1)
	register(t, one, early, 0)
	two, _ := open(t, domain, query)
	awaitNodes(t, two, "early", "e/1=10.0.0.1:1")
	have, err := two.Get(t.Context(), "early")
	if err != nil || fmt.Sprintln(have[0].Metadata, have[0].Endpoints[0].Request.Type, have[0].Nodes[0].Metadata, have[0].Version) !=
		"map[team:blue] Request map[protocol:mucp] 1.0.0\n" {
		t.Errorf("%+v, %v", have, err)
	}
	register(t, one, service("late / ü", "6", "2001:db8::1", 2), 0)
	awaitNodes(t, two, "late / ü", "6=[2001:db8::1]:2")
	register(t, one, service("late / ü", "6", "host.example", 3), time.Minute) // it has moved
	awaitNodes(t, two, "late / ü", "6=host.example:3")
	for _, r := range []*mdns.Registry{one, two} {
		registrytest.Eventually(t, func() string {
			names, err := r.List(t.Context())
			if have := fmt.Sprint(names, err); have != "[early late / ü] <nil>" {
				return have
			}
			return ""
		})
	}
	if err := one.Deregister(t.Context(), early); err != nil {
		t.Fatal(err)
	}
	awaitNodes(t, two, "early", "")
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	awaitNodes(t, two, "late / ü", "")
}

// speaker sends what a test wants the network to say.
type speaker struct {
	t    *testing.T
	conn *net.UDPConn
}

func newSpeaker(t *testing.T) *speaker {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &speaker{t, conn}
}

func (s *speaker) say(packet []byte) {
	s.t.Helper()
	if err := multicastOn(s.conn, loopback(s.t)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.conn.WriteToUDP(packet, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}); err != nil {
		s.t.Fatal(err)
	}
}

// node is the answer of a node with a time to live in seconds.
func (s *speaker) node(domain, name, id string, port uint16, ttl uint32, text []string) []byte {
	s.t.Helper()
	at := id + "." + name + "." + domain + "."
	head := func(kind uint16, name string) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{
		&dns.SRV{Hdr: head(dns.TypeSRV, at), Port: port, Target: "machine."},
		&dns.A{Hdr: head(dns.TypeA, "machine."), A: net.IPv4(10, 0, 0, 9)},
		&dns.TXT{Hdr: head(dns.TypeTXT, at), Txt: text},
	}}
	packet, err := m.Pack()
	if err != nil {
		s.t.Fatal(err)
	}
	return packet
}

// Nonsense is passed over, with one line a minute; who is silent is gone when
// his time is over; who takes another's address makes that one answer.
func TestNetwork(t *testing.T) {
	domain := newDomain()
	r, out := open(t, domain, "interface="+loopback(t))
	s := newSpeaker(t)
	text := mdns.EncodeText(t, "svc", "1")
	for _, nonsense := range [][]byte{
		nil, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 40_000),
		s.node(domain, "svc", "bad", 1, 60, []string{"zz"}),
		s.node(domain, "svc", "bad", 1, 60, mdns.EncodeText(t, "other", "1")),
		s.node(domain, "svc", "bad", 0, 60, text),
		s.node(domain, "svc", "bad", 1, 60, nil),
		s.node("local", "svc", "bad", 1, 60, text),
	} {
		s.say(nonsense)
	}
	s.say(s.node(domain, "svc", "short", 1, 2, text))
	s.say(s.node(domain, "svc", "old", 7, 60, text))
	awaitNodes(t, r, "svc", "old=10.0.0.9:7 short=10.0.0.9:1")
	s.say(s.node(domain, "svc", "new", 7, 60, text)) // old does not answer
	awaitNodes(t, r, "svc", "new=10.0.0.9:7")
	s.say(s.node(domain, "svc", "new", 8, 60, text))
	awaitNodes(t, r, "svc", "new=10.0.0.9:8")
	s.say(s.node(domain, "svc", "new", 8, 0, text))
	awaitNodes(t, r, "svc", "")
	if n := strings.Count(out.String(), "makes no sense"); n != 1 {
		t.Errorf("%d complaints:\n%s", n, out)
	}
}

func TestCheckAddress(t *testing.T) {
	for address, want := range map[string]string{
		"mdns://micro":                          "",
		"mdns://micro?interface=" + loopback(t): "",
		"mdns://a.b":                            "",
		"mdns://micro?interface=nosuch0":        "interface: expected names of interfaces",
		"mdns://micro?interfaces=lo":            "did you mean interface?",
		"mdns://127.0.0.1:5353":                 "expected mdns://DOMAIN",
		"http://micro":                          "expected mdns://DOMAIN",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		err = mdns.CheckAddress(u)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if err := mdns.CheckAddress(nil); err != nil {
		t.Error(err)
	}
}

func multicastOn(conn *net.UDPConn, name string) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	return ipv4.NewPacketConn(conn).SetMulticastInterface(i)
}
