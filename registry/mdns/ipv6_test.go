package mdns_test

import (
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv6"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/mdns"
	"github.com/micro/sidecar/registry/registrytest"
)

var group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: 5353}

// ears hear what is said in IPv6 on an interface.
type ears struct {
	mu   sync.Mutex
	said []*dns.Msg
}

func listen6(t *testing.T, on *net.Interface) *ears {
	t.Helper()
	conn, err := net.ListenMulticastUDP("udp6", on, group6)
	if err != nil {
		t.Fatal(err)
	}
	p := ipv6.NewPacketConn(conn)
	if err := p.SetControlMessage(ipv6.FlagInterface, true); err != nil {
		t.Fatal(err)
	}
	e := &ears{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 64<<10)
		for {
			n, from, _, err := p.ReadFrom(buffer)
			if err != nil {
				return
			}
			m := new(dns.Msg)
			if from != nil && from.IfIndex == on.Index && m.Unpack(buffer[:n]) == nil {
				e.mu.Lock()
				e.said = append(e.said, m)
				e.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return e
}

// heard reports whether a node was announced, or took its leave, and tells the
// kinds of its records.
func (e *ears) heard(name string, leave bool) (kinds string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.said {
		var all []string
		for _, rr := range m.Answer {
			if h := rr.Header(); h.Name == name && (h.Ttl == 0) == leave {
				all = append(all, dns.TypeToString[h.Rrtype])
			}
		}
		if slices.Contains(all, "SRV") {
			return strings.Join(all, " "), true
		}
	}
	return "", false
}

// mouth6 says things in IPv6 on an interface.
func mouth6(t *testing.T, on *net.Interface) func(m *dns.Msg) error {
	t.Helper()
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6unspecified})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := ipv6.NewPacketConn(conn)
	if err := p.SetMulticastInterface(on); err != nil {
		t.Fatal(err)
	}
	if err := p.SetMulticastLoopback(true); err != nil {
		t.Fatal(err)
	}
	return func(m *dns.Msg) error {
		packet, err := m.Pack()
		if err == nil {
			_, err = conn.WriteToUDP(packet, &net.UDPAddr{IP: group6.IP, Port: group6.Port, Zone: on.Name})
		}
		return err
	}
}

// interface6 returns an interface, not loopback, that carries multicast in IPv6.
func interface6(t *testing.T) *net.Interface {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagMulticast == 0 || i.Flags&net.FlagRunning == 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err == nil && slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.HasPrefix(a.String(), "fe80:") }) {
			return &i
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI needs an interface with IPv6")
	}
	t.Skip("no interface but loopback has IPv6")
	return nil
}

// node6 is what a node with nothing but an IPv6 address says.
func node6(t *testing.T, domain, name, id string, ttl uint32, text []string) *dns.Msg {
	t.Helper()
	at := id + "." + name + "." + domain + "."
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: at, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	return &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{
		&dns.SRV{Hdr: head(dns.TypeSRV), Port: 7, Target: at},
		&dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: net.ParseIP("2001:db8::7")},
		&dns.TXT{Hdr: head(dns.TypeTXT), Txt: text},
	}}
}

// All of it works in IPv6 alone, on the chosen interfaces and on no other.
func TestIPv6(t *testing.T) {
	on := interface6(t)
	domain := newDomain()
	heard, say := listen6(t, on), mouth6(t, on)
	r, _ := open(t, domain, "interface="+on.Name)
	elsewhere, _ := open(t, domain, "interface="+loopback(t))
	await := func(id string, leave bool) string {
		t.Helper()
		var kinds string
		registrytest.Eventually(t, func() (wrong string) {
			var ok bool
			if kinds, ok = heard.heard(id+".ours."+domain+".", leave); !ok {
				return "nothing was said of " + id
			}
			return ""
		})
		return kinds
	}

	register(t, elsewhere, service("ours", "elsewhere", "2001:db8::2", 8), 0)
	ours := service("ours", "here", "2001:db8::1", 8)
	register(t, r, ours, 0)
	if kinds := await("here", false); kinds != "SRV AAAA TXT" {
		t.Errorf("announced with %s", kinds)
	}

	theirs := mdns.EncodeText(t, "theirs", "1")
	registrytest.Eventually(t, func() string { // said again: it is a datagram
		if err := say(node6(t, domain, "theirs", "n", 60, theirs)); err != nil {
			t.Fatal(err)
		}
		return differ(registrytest.Nodes(t.Context(), r, "theirs"), "n=[2001:db8::7]:7")
	})
	registrytest.Eventually(t, func() string {
		if err := say(node6(t, domain, "theirs", "n", 0, theirs)); err != nil {
			t.Fatal(err)
		}
		return differ(registrytest.Nodes(t.Context(), r, "theirs"), "error: get theirs: "+registry.ErrNotFound.Error())
	})

	if err := r.Deregister(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	await("here", true)
	register(t, r, service("ours", "closed", "2001:db8::1", 9), time.Minute)
	await("closed", false)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	await("closed", true)
	if have := registrytest.Nodes(t.Context(), elsewhere, "ours"); have != "elsewhere=[2001:db8::2]:8" {
		t.Errorf("on another interface: %s", have)
	}
	if _, ok := heard.heard("elsewhere.ours."+domain+".", false); ok {
		t.Error("what is for another interface was said here")
	}
}

func differ(have, want string) string {
	if have == want {
		return ""
	}
	return "have " + have + ", want " + want
}
