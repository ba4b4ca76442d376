package static

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

const (
	// tryTimeout bounds one question to one name server, and lookupTimeout all
	// that a name costs.
	tryTimeout    = 2 * time.Second
	lookupTimeout = 10 * time.Second
	maxAddresses  = 1000 // of one name
	maxTargets    = 100  // of one SRV name
	systemConfig  = "/etc/resolv.conf"
)

var errNoServer = errors.New(systemConfig + " names no server")

// resolver asks name servers. Go's own resolver would do, but it does not tell
// how long an answer is good for.
type resolver struct {
	server string // host:port; "" are the system's
}

// resolve returns what a question's answer is, sorted, and how long it is
// good for. A name that does not exist, or has no addresses, is an empty
// answer; an error means that there was none.
func (r *resolver) resolve(ctx context.Context, q question) ([]netip.AddrPort, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	config, err := r.config()
	if err != nil {
		return nil, 0, err
	}
	l := &search{config: config, ttl: maxTTL}
	if q.srv {
		err = l.srv(ctx, q.name)
	} else {
		err = l.addresses(ctx, q.name, q.port)
	}
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(l.found, netip.AddrPort.Compare)
	return slices.Compact(l.found), l.ttl, nil
}

// config is read each time: networks come and go.
func (r *resolver) config() (*dns.ClientConfig, error) {
	if r.server != "" {
		host, port, err := net.SplitHostPort(r.server)
		return &dns.ClientConfig{Servers: []string{host}, Port: port, Ndots: 1}, err
	}
	config, err := dns.ClientConfigFromFile(systemConfig)
	if err != nil {
		return nil, fmt.Errorf("%w (the parameter nameserver names one)", err)
	}
	if len(config.Servers) == 0 {
		return nil, errNoServer
	}
	return config, nil
}

// search is the work on one question.
type search struct {
	config *dns.ClientConfig
	ttl    time.Duration // the shortest of all records
	found  []netip.AddrPort
}

// srv adds the nodes of the records that stand first: a record of a higher
// priority is for when those before it cannot be reached, RFC 2782.
func (l *search) srv(ctx context.Context, name string) error {
	records, err := l.ask(ctx, name, dns.TypeSRV)
	if err != nil {
		return err
	}
	var all []*dns.SRV
	for _, rr := range records {
		if s, ok := rr.(*dns.SRV); ok && s.Target != "." && s.Port != 0 {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *dns.SRV) int { return int(a.Priority) - int(b.Priority) })
	for i, s := range all {
		if i == maxTargets || s.Priority != all[0].Priority {
			break
		}
		if err := l.addresses(ctx, s.Target, int(s.Port)); err != nil {
			return err
		}
	}
	return nil
}

// addresses adds the addresses of a name.
func (l *search) addresses(ctx context.Context, name string, port int) error {
	v4, err := l.ask(ctx, name, dns.TypeA)
	if err != nil {
		return err
	}
	// Some servers fail when asked for what they know nothing of.
	v6, err := l.ask(ctx, name, dns.TypeAAAA)
	if rcode := (*rcodeError)(nil); err != nil && (len(v4) == 0 || !errors.As(err, &rcode)) {
		return err
	}
	for _, rr := range append(v4, v6...) {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok && len(l.found) < maxAddresses {
			l.found = append(l.found, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
		}
	}
	return nil
}

// ask returns the records of the first of a name's spellings that has some.
func (l *search) ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	for _, full := range l.config.NameList(name) {
		answer, err := l.try(ctx, full, kind)
		if err != nil {
			return nil, err
		}
		if len(answer.Answer) == 0 {
			continue
		}
		for _, rr := range answer.Answer {
			l.ttl = min(l.ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
		return answer.Answer, nil
	}
	return nil, nil
}

// rcodeError is a server that answered, but cannot tell.
type rcodeError struct{ code int }

func (e *rcodeError) Error() string { return "answered " + dns.RcodeToString[e.code] }

// try asks one server after the other.
func (l *search) try(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), kind)
	m.SetEdns0(dns.DefaultMsgSize, false)
	var last error
	for _, server := range l.config.Servers {
		at := net.JoinHostPort(server, l.config.Port)
		answer, err := exchange(ctx, m, at)
		switch {
		case err != nil:
			last = fmt.Errorf("ask %s for %s: %w", at, name, err)
		case answer.Rcode == dns.RcodeSuccess || answer.Rcode == dns.RcodeNameError:
			return answer, nil
		default:
			last = fmt.Errorf("ask %s for %s: %w", at, name, &rcodeError{answer.Rcode})
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

// exchange asks one server, over TCP when the answer is too long for UDP.
func exchange(ctx context.Context, m *dns.Msg, server string) (*dns.Msg, error) {
	c := dns.Client{Timeout: tryTimeout}
	answer, _, err := c.ExchangeContext(ctx, m, server)
	if err == nil && answer.Truncated {
		c.Net = "tcp"
		answer, _, err = c.ExchangeContext(ctx, m, server)
	}
	return answer, err
}
