package mdns

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	// tickInterval is how often what is due is looked for.
	tickInterval = 250 * time.Millisecond
	// askInterval is how often the network is asked for all services.
	askInterval = 10 * time.Second
	// askPerMessage bounds the questions in one message.
	askPerMessage = 20
	// maxAnswers bounds the answers that this process gives, each second.
	maxAnswers = 2000
)

// run asks, expires and announces until ctx ends.
func (r *Registry) run(ctx context.Context) {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	begun := time.Now()
	rounds := []time.Duration{0, 200 * time.Millisecond, time.Second, 3 * time.Second} // the first ones
	next := begun
	second := begun
	r.ask(listName + "." + r.domain)
	for known := false; ; {
		now := time.Now()
		if !known && now.Sub(begun) >= firstAnswers {
			known = true
			r.begin()
		}
		if !now.Before(next) {
			if len(rounds) > 0 {
				next, rounds = begun.Add(rounds[0]), rounds[1:]
				r.askAll(false)
			} else {
				next = now.Add(askInterval - askInterval/10 + rand.N(askInterval/5))
				r.follow()
				r.askAll(true)
			}
		}
		r.expire(now)
		if now.Sub(second) >= time.Second {
			second = now
			r.announceAgain(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// begin makes the picture known.
func (r *Registry) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Replace(nil)
	for service := range r.cache.services {
		r.show(service)
	}
	close(r.begun)
}

// askAll asks for the services, and for the nodes of those that are known.
// What is counted is missed by who does not answer.
func (r *Registry) askAll(counted bool) {
	r.mu.Lock()
	if counted {
		for service := range r.cache.asked() {
			r.show(service)
		}
	}
	labels := map[string]bool{}
	for l := range r.cache.listed {
		labels[l] = true
	}
	for _, n := range r.cache.nodes {
		labels[label(n.service.Name)] = true
	}
	r.mu.Unlock()
	names := []string{listName + "." + r.domain}
	for l := range labels {
		names = append(names, l+"."+r.domain)
	}
	r.ask(names...)
}

// ask asks the network for names.
func (r *Registry) ask(names ...string) {
	for len(names) > 0 {
		n := min(len(names), askPerMessage)
		m := new(dns.Msg)
		for _, name := range names[:n] {
			m.Question = append(m.Question, dns.Question{Name: name, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
		}
		names = names[n:]
		packet, err := m.Pack()
		if err != nil { // a name that go-micro made and DNS cannot hold
			if n == 1 {
				continue
			}
			for _, q := range m.Question {
				r.ask(q.Name)
			}
			continue
		}
		for _, s := range r.sockets {
			s.send(packet, false)
		}
	}
}

// expire ends what is over, here and elsewhere.
func (r *Registry) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := r.cache.expire(now)
	for name, o := range r.own {
		if !o.deadline.IsZero() && !now.Before(o.deadline) {
			r.remove(name)
			lost[o.service.Name] = true
		}
	}
	for name, until := range r.left {
		if now.After(until) {
			delete(r.left, name)
		}
	}
	for service := range lost {
		r.show(service)
	}
}

// announceAgain announces what was registered a moment ago once more, and asks
// again after those that are in doubt.
func (r *Registry) announceAgain(now time.Time) {
	r.mu.Lock()
	var doubted []string
	for name, n := range r.cache.nodes {
		if !n.doubted.IsZero() {
			doubted = append(doubted, name)
		}
	}
	for _, o := range r.own {
		if o.announce > 0 {
			o.announce--
			r.announce(o, o.left(now))
		}
	}
	r.mu.Unlock()
	r.ask(doubted...)
}

// take deals with a packet from the network. What is no message is passed
// over: the port is shared with others.
func (r *Registry) take(p packet) {
	m := new(dns.Msg)
	if err := m.Unpack(p.data); err != nil || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess {
		return
	}
	if m.Response {
		r.hear(m)
		return
	}
	r.answer(m, p)
}

// hear takes an answer in.
func (r *Registry) hear(m *dns.Msg) {
	h := hear(m, r.domain)
	if h.wrong != nil {
		r.odd.Warn("a node on the network makes no sense and is passed over", "error", h.wrong)
	}
	now := time.Now()
	var ask []string
	r.mu.Lock()
	for _, l := range h.listed {
		if r.cache.list(l) {
			ask = append(ask, l+"."+r.domain)
		}
	}
	for name, e := range h.nodes {
		if _, left := r.left[name]; left || r.own[name] != nil {
			continue // an echo
		}
		if e.ttl == 0 {
			r.cache.forget(name)
			r.show(e.service.Name)
			continue
		}
		room, moved := r.cache.hear(name, e, now)
		if !room {
			r.odd.Warn("more nodes on the network than are kept; one is passed over", "node", name)
			continue
		}
		if moved {
			ask = append(ask, r.doubt(name, e, now)...)
		}
		r.show(e.service.Name)
	}
	r.mu.Unlock()
	r.ask(ask...)
}

// doubt returns who has to say that he is still there: a process that died and
// came back has another id at the same address. r.mu is held.
func (r *Registry) doubt(name string, e *entry, now time.Time) []string {
	var ask []string
	for other := range r.cache.at[e.node().HostPort()] {
		if n := r.cache.nodes[other]; other != name && n.doubted.IsZero() {
			n.doubted = now.Add(doubtTime)
			ask = append(ask, other)
		}
	}
	return ask
}

// answer answers a question for what is registered here, each node in a
// message of its own: go-micro reads one a message.
func (r *Registry) answer(m *dns.Msg, p packet) {
	now := time.Now()
	type reply struct {
		question dns.Question
		records  []dns.RR
	}
	var replies []reply
	r.mu.Lock()
	for _, q := range m.Question {
		if q.Name == listName+"."+r.domain {
			listed := map[string]bool{}
			for _, o := range r.own {
				if name := o.service.Name; !listed[name] {
					listed[name] = true
					replies = append(replies, reply{q, listing(name, r.domain)})
				}
			}
			continue
		}
		for name, o := range r.own {
			service := label(o.service.Name) + "." + r.domain
			if q.Name != service && q.Name != name || !r.mayAnswer(now) {
				continue
			}
			rr, err := records(o.service, o.service.Nodes[0], r.domain, o.left(now))
			if err != nil {
				continue // Register has tried
			}
			ptr := *rr[0].Header()
			ptr.Name, ptr.Rrtype = service, dns.TypePTR
			replies = append(replies, reply{q, append([]dns.RR{&dns.PTR{Hdr: ptr, Ptr: name}}, rr...)})
		}
	}
	r.mu.Unlock()
	for _, reply := range replies {
		r.reply(m, reply.question, reply.records, p)
	}
}

// reply sends an answer to who asked, or to all if it was a full member of
// multicast DNS that asked: RFC 6762 section 6.7.
func (r *Registry) reply(m *dns.Msg, q dns.Question, rr []dns.RR, p packet) {
	packet, err := answerTo(m.Id, []dns.Question{q}, rr)
	if err != nil {
		return
	}
	if p.from.Port == port {
		p.sock.send(packet, true)
		return
	}
	_, _ = p.sock.shared.WriteToUDP(packet, &net.UDPAddr{IP: p.from.IP, Port: p.from.Port, Zone: p.from.Zone})
}

// mayAnswer bounds the answers, so that nobody can use this process to flood
// others. r.mu is held.
func (r *Registry) mayAnswer(now time.Time) bool {
	if now.Sub(r.since) >= time.Second {
		r.since, r.answers = now, 0
	}
	r.answers++
	return r.answers <= maxAnswers
}
