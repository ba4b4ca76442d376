package mdns

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// port is that of multicast DNS, RFC 6762 section 3.
const port = 5353

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port}
)

// packet is one that came in.
type packet struct {
	data []byte
	from *net.UDPAddr
	sock *sockets // it came through
	ifi  int      // the interface, 0 when the system does not tell
}

// sockets are those of one family: one on the port of multicast DNS, where
// others on this machine may be, too, and one of our own for questions. Their
// answers come back to it alone.
type sockets struct {
	group   *net.UDPAddr
	shared  *net.UDPConn
	own     *net.UDPConn
	join    func(i *net.Interface) error
	leave   func(i *net.Interface) error
	choose  map[*net.UDPConn]func(i *net.Interface) error // of what is sent
	receive func([]byte) (int, int, *net.UDPAddr, error)

	mu     sync.Mutex // of choosing and sending
	joined map[int]net.Interface
}

// listen opens the sockets of a family, "udp4" or "udp6".
func listen(network string) (*sockets, error) {
	s := &sockets{group: group4, joined: map[int]net.Interface{}}
	any := &net.UDPAddr{IP: net.IPv4zero}
	if network == "udp6" {
		s.group, any = group6, &net.UDPAddr{IP: net.IPv6unspecified}
	}
	var err error
	// With a multicast address net listens on all addresses, and shares the port.
	if s.shared, err = net.ListenUDP(network, &net.UDPAddr{IP: s.group.IP, Port: port}); err != nil {
		return nil, err
	}
	if s.own, err = net.ListenUDP(network, any); err != nil {
		return nil, errors.Join(err, s.shared.Close())
	}
	s.choose = map[*net.UDPConn]func(*net.Interface) error{}
	if network == "udp6" {
		err = s.open6()
	} else {
		err = s.open4()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *sockets) open4() error {
	shared, own := ipv4.NewPacketConn(s.shared), ipv4.NewPacketConn(s.own)
	s.join = func(i *net.Interface) error { return shared.JoinGroup(i, s.group) }
	s.leave = func(i *net.Interface) error { return shared.LeaveGroup(i, s.group) }
	s.choose[s.shared], s.choose[s.own] = shared.SetMulticastInterface, own.SetMulticastInterface
	_ = shared.SetControlMessage(ipv4.FlagInterface, true) // where the system has it
	s.receive = func(b []byte) (int, int, *net.UDPAddr, error) {
		n, cm, from, err := shared.ReadFrom(b)
		addr, _ := from.(*net.UDPAddr)
		if cm == nil {
			return n, 0, addr, err
		}
		return n, cm.IfIndex, addr, err
	}
	return errors.Join(shared.SetMulticastLoopback(true), own.SetMulticastLoopback(true))
}

func (s *sockets) open6() error {
	shared, own := ipv6.NewPacketConn(s.shared), ipv6.NewPacketConn(s.own)
	s.join = func(i *net.Interface) error { return shared.JoinGroup(i, s.group) }
	s.leave = func(i *net.Interface) error { return shared.LeaveGroup(i, s.group) }
	s.choose[s.shared], s.choose[s.own] = shared.SetMulticastInterface, own.SetMulticastInterface
	_ = shared.SetControlMessage(ipv6.FlagInterface, true) // where the system has it
	s.receive = func(b []byte) (int, int, *net.UDPAddr, error) {
		n, cm, from, err := shared.ReadFrom(b)
		addr, _ := from.(*net.UDPAddr)
		if cm == nil {
			return n, 0, addr, err
		}
		return n, cm.IfIndex, addr, err
	}
	return errors.Join(shared.SetMulticastLoopback(true), own.SetMulticastLoopback(true))
}

func (s *sockets) close() error { return errors.Join(s.shared.Close(), s.own.Close()) }

// follow joins the group on the interfaces that are there now. It returns how
// many that are.
func (s *sockets) follow(wanted []net.Interface) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[int]bool{}
	for _, i := range wanted {
		there[i.Index] = true
		if _, joined := s.joined[i.Index]; joined {
			continue
		}
		if s.join(&i) == nil { // some have this family, some not
			s.joined[i.Index] = i
		}
	}
	for index, i := range s.joined {
		if !there[index] {
			_ = s.leave(&i) // it may be gone altogether
			delete(s.joined, index)
		}
	}
	return len(s.joined)
}

// send sends to the group on all interfaces: an answer from the shared socket,
// as RFC 6762 section 6 has it, a question from our own. What cannot be sent
// on one interface is sent on the others.
func (s *sockets) send(data []byte, answer bool) {
	conn := s.own
	if answer {
		conn = s.shared
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.joined {
		if s.choose[conn](&i) == nil {
			to := *s.group
			if to.IP.To4() == nil {
				to.Zone = i.Name
			}
			_, _ = conn.WriteToUDP(data, &to)
		}
	}
}

// chosen reports whether a packet came in on an interface that was chosen: a
// system delivers what any program on it has joined.
func (s *sockets) chosen(ifi int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.joined[ifi]
	return ok || ifi == 0
}

// read hands over packets until the socket is closed.
func (s *sockets) read(shared bool, take func(packet)) {
	buffer := make([]byte, 64<<10)
	for {
		var p packet
		var n int
		var err error
		if shared {
			n, p.ifi, p.from, err = s.receive(buffer)
		} else {
			n, p.from, err = s.own.ReadFromUDP(buffer)
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || p.from == nil || !s.chosen(p.ifi) {
			continue
		}
		p.data, p.sock = buffer[:n], s
		take(p)
	}
}

// interfaces returns those of the names, or all that can do multicast.
func interfaces(names []string) ([]net.Interface, error) {
	var wanted []net.Interface
	for _, name := range names {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("interface %q: %w", name, err)
		}
		wanted = append(wanted, *i)
	}
	if len(names) > 0 {
		return wanted, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&(net.FlagMulticast|net.FlagLoopback) != 0 {
			wanted = append(wanted, i)
		}
	}
	return wanted, nil
}
