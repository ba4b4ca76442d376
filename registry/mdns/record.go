package mdns

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/micro/sidecar/registry"
)

const (
	// maxTTL is the time to live of go-micro's records, and of ours that have
	// no earlier end.
	maxTTL = 120 * time.Second
	// maxText bounds what a node's text may unpack to, in bytes.
	maxText = 256 << 10
	// maxMessage bounds a message in bytes: what UDP carries, with some room.
	maxMessage = 60_000
	// listName is where go-micro lists services, each with this port.
	listName = "_services"
	listPort = 9999
	// encodedPrefix begins the label that stands for a text that is no label.
	encodedPrefix = "micro--"
)

// text is what go-micro puts into a TXT record: the JSON of this, compressed,
// in hex, cut into strings of 255 bytes. What follows its four fields is ours,
// and passed over by go-micro.
type text struct {
	Metadata  map[string]string
	Service   string
	Version   string
	Endpoints []registry.Endpoint

	ID              string            `json:"Id,omitempty"`      // when the name does not have it
	Address         string            `json:"Address,omitempty"` // when no record can have it
	ServiceMetadata map[string]string `json:"ServiceMetadata,omitempty"`
}

func encodeText(t text) ([]string, error) {
	body, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if len(body) > maxText {
		return nil, fmt.Errorf("expected at most %d bytes of metadata and endpoints, got %d", maxText, len(body))
	}
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	digits := hex.EncodeToString(packed.Bytes())
	var parts []string
	for len(digits) > 255 {
		parts, digits = append(parts, digits[:255]), digits[255:]
	}
	return append(parts, digits), nil
}

func decodeText(parts []string) (t text, size int, err error) {
	packed, err := hex.DecodeString(strings.Join(parts, ""))
	if err != nil {
		return text{}, 0, err
	}
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return text{}, 0, err
	}
	body, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return text{}, 0, err
	}
	if len(body) > maxText {
		return text{}, 0, fmt.Errorf("it unpacks to more than %d bytes", maxText)
	}
	err = json.Unmarshal(body, &t)
	return t, len(body), err
}

// label returns a text as it stands in a domain name: as it is where that can
// be, since go-micro looks for it, else as a digest. Dots part labels.
func label(plain string) string {
	ok := len(plain) <= 120 && !strings.HasPrefix(plain, encodedPrefix) && plain != listName
	for part := range strings.SplitSeq(plain, ".") {
		ok = ok && part != "" && len(part) <= 63 && !strings.ContainsFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
	}
	if ok {
		return plain
	}
	sum := sha256.Sum256([]byte(plain))
	return encodedPrefix + hex.EncodeToString(sum[:20])
}

// entry is one node with what was said about its version.
type entry struct {
	service registry.Service // with this one node
	ttl     time.Duration    // 0: it takes its leave
	size    int              // bytes that it takes, about
}

func (e *entry) node() registry.Node { return e.service.Nodes[0] }

// instance is the domain name of a node.
func instance(service, id, domain string) string {
	return label(id) + "." + label(service) + "." + domain
}

// records returns a node's records in the order of go-micro's: SRV, A or AAAA,
// TXT. The host is the node's own name, so that nodes with different addresses
// on one machine are not mixed up.
func records(s registry.Service, n registry.Node, domain string, ttl time.Duration) ([]dns.RR, error) {
	name := instance(s.Name, n.ID, domain)
	seconds := uint32((ttl + time.Second - 1) / time.Second)
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: seconds}
	}
	t := text{
		Service: s.Name, Version: s.Version, Metadata: n.Metadata, Endpoints: s.Endpoints, ServiceMetadata: s.Metadata,
	}
	if label(n.ID) != n.ID {
		t.ID = n.ID
	}
	all := []dns.RR{&dns.SRV{Hdr: head(dns.TypeSRV), Priority: 10, Weight: 1, Port: uint16(n.Port), Target: name}}
	addr, err := netip.ParseAddr(n.Address)
	switch {
	case err != nil || addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified():
		t.Address = n.Address
	case addr.Is4():
		all = append(all, &dns.A{Hdr: head(dns.TypeA), A: addr.AsSlice()})
	default:
		all = append(all, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: addr.AsSlice()})
	}
	parts, err := encodeText(t)
	if err != nil {
		return nil, err
	}
	return append(all, &dns.TXT{Hdr: head(dns.TypeTXT), Txt: parts}), nil
}

// answerTo makes a message of records; go-micro wants its question in it.
func answerTo(id uint16, q []dns.Question, rr []dns.RR) ([]byte, error) {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: id, Response: true, Authoritative: true}, Compress: true, Question: q, Answer: rr}
	packet, err := m.Pack()
	if err == nil && len(packet) > maxMessage {
		err = fmt.Errorf("expected at most %d bytes, got %d", maxMessage, len(packet))
	}
	return packet, err
}

// listing is how go-micro lists a service.
func listing(name, domain string) []dns.RR {
	at := label(name) + "." + listName + "." + domain
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: at, Rrtype: kind, Class: dns.ClassINET, Ttl: uint32(maxTTL / time.Second)}
	}
	ptr := head(dns.TypePTR)
	ptr.Name = listName + "." + domain
	return []dns.RR{
		&dns.PTR{Hdr: ptr, Ptr: at},
		&dns.SRV{Hdr: head(dns.TypeSRV), Priority: 10, Weight: 1, Port: listPort, Target: at},
		&dns.A{Hdr: head(dns.TypeA), A: []byte{0, 0, 0, 0}},
		&dns.TXT{Hdr: head(dns.TypeTXT), Txt: []string{""}},
	}
}

// heard is what an answer holds.
type heard struct {
	listed []string // labels of services
	nodes  map[string]*entry
	wrong  error // about one that was passed over
}

// parts of one node in an answer.
type parts struct {
	srv *dns.SRV
	txt *dns.TXT
}

// hear takes an answer apart. Addresses count with the SRV record that they
// came with: go-micro gives all nodes of a machine one host name, whatever
// their addresses.
func hear(m *dns.Msg, domain string) heard {
	h := heard{nodes: map[string]*entry{}}
	nodes := map[string]*parts{}
	hosts := map[string]netip.Addr{}
	at := func(name string) *parts {
		if nodes[name] == nil {
			nodes[name] = &parts{}
		}
		return nodes[name]
	}
	for _, rr := range append(m.Answer, m.Extra...) {
		switch rr := rr.(type) {
		case *dns.PTR:
			if service, ok := strings.CutSuffix(rr.Ptr, "."+listName+"."+domain); ok && rr.Hdr.Name == listName+"."+domain && rr.Hdr.Ttl > 0 {
				h.listed = append(h.listed, service)
			}
		case *dns.SRV:
			at(rr.Hdr.Name).srv = rr
		case *dns.TXT:
			at(rr.Hdr.Name).txt = rr
		case *dns.A:
			if addr, ok := netip.AddrFromSlice(rr.A); ok {
				hosts[rr.Hdr.Name] = addr.Unmap()
			}
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(rr.AAAA); ok && !hosts[rr.Hdr.Name].Is4() {
				hosts[rr.Hdr.Name] = addr
			}
		}
	}
	h.assemble(nodes, hosts, domain)
	return h
}

// assemble makes nodes of their parts.
func (h *heard) assemble(nodes map[string]*parts, hosts map[string]netip.Addr, domain string) {
	for name, p := range nodes {
		if p.srv == nil || p.txt == nil || !strings.HasSuffix(name, "."+domain) || strings.HasSuffix(name, "."+listName+"."+domain) {
			continue
		}
		e, err := p.entry(name, domain, hosts[p.srv.Target])
		if err != nil {
			h.wrong = fmt.Errorf("%.300q: %w", name, err)
			continue
		}
		h.nodes[name] = e
	}
}

// entry makes a node of its records.
func (p *parts) entry(name, domain string, addr netip.Addr) (*entry, error) {
	t, size, err := decodeText(p.txt.Txt)
	if err != nil {
		return nil, err
	}
	id, ok := strings.CutSuffix(name, "."+t.Service+"."+domain)
	if !ok {
		id, ok = strings.CutSuffix(name, "."+label(t.Service)+"."+domain)
	}
	if !ok || t.Service == "" || id == "" {
		return nil, errors.New("its name and its text do not agree")
	}
	node := registry.Node{ID: cmp.Or(t.ID, id), Address: t.Address, Port: int(p.srv.Port), Metadata: t.Metadata}
	if node.Address == "" && addr.IsValid() && !addr.IsUnspecified() {
		node.Address = addr.String()
	}
	ttl := time.Duration(min(p.srv.Hdr.Ttl, p.txt.Hdr.Ttl, uint32(maxTTL/time.Second))) * time.Second
	if ttl > 0 {
		if err := registry.CheckNode(node); err != nil {
			return nil, err
		}
	}
	return &entry{
		service: registry.Service{Name: t.Service, Version: t.Version, Metadata: t.ServiceMetadata, Endpoints: t.Endpoints, Nodes: []registry.Node{node}},
		ttl:     ttl, size: size + 2*len(name) + 512,
	}, nil
}
