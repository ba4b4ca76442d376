package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/sleep"
)

const (
	// requestExpires is how long a request for messages waits at the server,
	// which says every heartbeat that it is still there.
	requestExpires = 30 * time.Second
	heartbeat      = 5 * time.Second
	// silence is how long nothing may be heard while a request waits.
	silence = 2*heartbeat + time.Second
)

// pull is what a member has asked the server for. What the server says of the
// requests of one time goes to one subject under the prefix; when they are given
// up the next time begins. The messages themselves do not tell what they were
// asked by: those that come late are as good as others, or are given back, and so
// there is one subscription, which ends with the membership, or the turn.
// The member's mu guards it.
type pull struct {
	prefix   string
	sub      *gonats.Subscription // nil while nothing may come
	times    int
	inbox    string // of this time
	asked    int    // messages that were asked for and have not come
	appetite appetite
	ticket   ticket
	broken   bool // what was asked for will not come: begin anew
	again    bool // … and declare the queue anew
	heard    time.Time
}

// begin gives up what was asked for.
func (p *pull) begin() {
	p.times++
	p.inbox = p.prefix + "." + strconv.Itoa(p.times)
	p.asked = 0
}

// request is what the server is asked.
type request struct {
	Batch     int           `json:"batch"`
	Expires   time.Duration `json:"expires"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
	MaxBytes  int           `json:"max_bytes,omitempty"`
}

// run asks for messages whenever there is room, until the member is closed.
func (m *member) run() {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for m.ended.Err() == nil {
		lost, err := m.broker.link.Wait(m.ended)
		if err != nil {
			return
		}
		collecting, err := m.ask()
		if err == nil && collecting {
			err = m.collect()
		}
		switch {
		case err != nil:
			m.broker.o.Log.Debug("broker: ask for messages", "topic", m.topic, "queue", m.queue, "error", err)
			_ = sleep.For(m.ended, retry) // the loop looks at ended
			continue
		case collecting:
			continue
		}
		select {
		case <-m.kick:
		case <-tick.C:
			m.listen()
		case <-lost:
			m.fail(false)
		case <-m.ended.Done():
		}
	}
}

// listen notices a server that has gone silent.
func (m *member) listen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pull.asked > 0 && time.Since(m.pull.heard) > silence {
		m.pull.broken = true
	}
}

// fail notes that what was asked for will not come.
func (m *member) fail(redeclare bool) {
	m.mu.Lock()
	m.pull.broken, m.pull.again = true, m.pull.again || redeclare
	m.mu.Unlock()
	m.wake()
}

func (m *member) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// ask asks for as many messages as there is room for: all at once when nothing
// is under way, and then not for less than half of the prefetch, so that a
// quick member does not send a request for each message. While the member has
// to collect it asks for nothing and says so.
func (m *member) ask() (collecting bool, err error) {
	m.mu.Lock()
	broken, again, standby := m.pull.broken, m.pull.again, m.turn != nil && !m.order.active
	m.mu.Unlock()
	if standby {
		return false, nil
	}
	if broken {
		if err := m.renew(again); err != nil {
			return false, err
		}
	}
	m.mu.Lock()
	if m.order.collecting && m.order.active {
		m.mu.Unlock()
		return true, nil
	}
	r := m.next()
	m.mu.Unlock()
	if r.Batch == 0 {
		return false, nil
	}
	return false, m.send(r)
}

// next is the request to send now; one for no messages is none. m.mu is held.
func (m *member) next() request {
	batch, most := m.want()
	r := request{Batch: batch, Expires: requestExpires, Heartbeat: heartbeat, MaxBytes: most}
	switch large := m.pull.appetite.budget > 0 && most == 0; {
	case batch == 0:
		if m.pull.asked == 0 {
			m.giveTicket()
		}
	case !large:
		m.giveTicket()
	case m.takeTicket():
		r.Expires, r.Heartbeat = largeExpires, largeHeartbeat
	default:
		r.Batch = 0
	}
	return r
}

// send sends a request.
func (m *member) send(r request) error {
	m.mu.Lock()
	if m.pull.sub == nil { // the turn was lost meanwhile
		m.mu.Unlock()
		return nil
	}
	m.pull.asked += r.Batch
	m.pull.appetite.ask(r.MaxBytes)
	m.pull.heard = time.Now()
	inbox := m.pull.inbox
	m.mu.Unlock()
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := m.broker.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+m.broker.o.Stream+"."+m.consumer, inbox, text); err != nil {
		m.fail(false)
		return err
	}
	return nil
}

// want is how many messages shall be asked for, and how many bytes of them; 0
// is any. m.mu is held.
func (m *member) want() (batch, most int) {
	if m.pull.sub == nil || m.order.collecting {
		return 0, 0
	}
	room := m.limit() - len(m.holdings) - m.pull.asked
	if room <= 0 || m.pull.asked > 0 && room < (m.limit()+1)/2 {
		return 0, 0
	}
	return m.pull.appetite.want(room, m.pull.asked > 0, len(m.holdings) > 0)
}

// renew begins anew with what is asked for.
func (m *member) renew(redeclare bool) error {
	if redeclare {
		if err := m.declareAgain(); err != nil {
			return err
		}
	}
	if err := m.listenToInbox(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.giveTicket()
	m.pull.begin()
	m.pull.broken, m.pull.again = false, false
	m.order.begin()
	return nil
}

// declareAgain makes the queue again if it has gone.
func (m *member) declareAgain() error {
	info, err := m.broker.declare(m.ended, m.topic, m.queue, m.o.QueueOptions)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.wait = info.Config.AckWait
	anew := !info.Created.Equal(m.created)
	m.created = info.Created
	if m.turn != nil {
		m.inFlight = max(info.Config.MaxAckPending, 1)
	}
	m.mu.Unlock()
	if anew {
		m.broker.o.Log.Warn("a durable queue was deleted and has begun anew", "topic", m.topic, "queue", m.queue)
	}
	if m.turn != nil && anew { // what we have is none of this one's
		m.forget()
	}
	return nil
}

// listenToInbox subscribes to what is asked for, unless it has been done.
func (m *member) listenToInbox() error {
	m.mu.Lock()
	have := m.pull.sub != nil
	m.mu.Unlock()
	if have {
		return nil
	}
	sub, err := m.broker.conn.Subscribe(m.pull.prefix+".*", m.take)
	if err != nil {
		return err
	}
	// The prefetch bounds what waits.
	err = sub.SetPendingLimits(-1, -1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil || m.turn != nil && !m.order.active { // meanwhile
		return errors.Join(err, sub.Unsubscribe())
	}
	m.pull.sub = sub
	return nil
}

// drop ends the inbox.
func (m *member) drop() {
	m.mu.Lock()
	sub := m.pull.sub
	m.pull.sub = nil
	m.giveTicket()
	m.mu.Unlock()
	if sub != nil {
		// It fails when the connection is closed, and then there is nothing to end.
		_ = sub.Unsubscribe()
	}
}

// drainInbox ends the inbox after what is under way to it has come, so that it can
// be given back: what got lost here would come again only when its time is
// over, and count.
func (m *member) drainInbox(ctx context.Context) {
	m.mu.Lock()
	sub := m.pull.sub
	m.mu.Unlock()
	if sub == nil {
		return
	}
	drained := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(drained) })
	if !m.broker.link.Up() || sub.Drain() != nil {
		m.drop()
		return
	}
	select {
	case <-drained:
	case <-m.broker.link.Lost():
	case <-ctx.Done():
	}
	m.drop()
}

// take is called for what arrives in the inbox, one after the other.
func (m *member) take(msg *gonats.Msg) {
	if msg.Reply == "" || msg.Header.Get("Status") != "" {
		m.status(msg)
		return
	}
	h, attempt, err := m.open(msg)
	if err != nil {
		m.broker.o.Log.Warn("broker: a delivery cannot be read", "topic", m.topic, "queue", m.queue, "error", err)
		return // it comes again
	}
	m.mu.Lock()
	m.pull.heard = time.Now()
	keep := m.keep()
	m.pull.asked = max(m.pull.asked-1, 0)
	m.giveTicket()
	if !keep {
		m.mu.Unlock()
		if m.turn == nil || m.ended.Err() != nil { // else it is for whoever has the turn
			m.late.Go(h.giveBack)
		}
		return
	}
	if m.turn != nil && m.twice(h) {
		m.mu.Unlock()
		return
	}
	m.holdings[h] = struct{}{}
	m.pull.appetite.take(h.size)
	wait := m.wait
	if m.turn != nil {
		wait = fenced(wait)
	}
	h.held = broker.Hold(h.stored, attempt, wait, h)
	collected := m.turn != nil && m.order.arrived(h)
	m.mu.Unlock()
	if !collected {
		select {
		case m.ready <- h:
		case <-m.ended.Done(): // leave returns it
		}
	}
	if m.wants() {
		m.wake()
	}
}

// keep tells whether a message that has come is for us: not when the membership
// or the turn has ended, nor when it was asked for before and there is no room
// any more. All messages of an
// ordered queue are for who has the turn. m.mu is held.
func (m *member) keep() bool {
	switch {
	case m.pull.sub == nil || m.ended.Err() != nil:
		return false
	case m.turn != nil:
		return m.order.active && m.turn.ours()
	}
	return m.pull.asked > 0 || len(m.holdings) < m.limit()
}

// wants tells that there is something for run to do.
func (m *member) wants() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	batch, _ := m.want()
	return batch > 0 || m.order.collecting && m.pull.asked == 0
}

// status is what the server says of a request.
func (m *member) status(msg *gonats.Msg) {
	m.mu.Lock()
	current := msg.Subject == m.pull.inbox
	if current {
		m.pull.heard = time.Now()
	}
	m.mu.Unlock()
	if !current {
		return
	}
	switch msg.Header.Get("Status") {
	case "100": // a heartbeat
	case "408", "404": // it has expired, and says how much of it was not given
		m.rest(msg.Header, false)
	case "409":
		switch msg.Header.Get("Description") {
		case "Batch Completed": // so is said of requests with a bound in bytes
			m.rest(msg.Header, false)
			return
		case "Message Size Exceeds MaxBytes":
			m.rest(msg.Header, true)
			return
		}
		fallthrough
	default: // 409: the consumer is gone, a server stops …; 503: nobody is there
		_ = sleep.For(m.ended, retry/10) // whoever asks next looks at ended
		m.fail(true)
	}
}

// rest notes what was left of a request that has ended: because its time was
// over, it was fulfilled, or the next message was too large for it.
func (m *member) rest(h gonats.Header, tooLarge bool) {
	messages, err := strconv.Atoi(h.Get("Nats-Pending-Messages"))
	if err != nil {
		m.fail(false)
		return
	}
	bytes, err := strconv.Atoi(cmp.Or(h.Get("Nats-Pending-Bytes"), "0"))
	if err != nil {
		m.fail(false)
		return
	}
	m.mu.Lock()
	m.giveTicket()
	m.pull.asked = max(m.pull.asked-messages, 0)
	m.pull.appetite.asked = max(m.pull.appetite.asked-bytes, 0)
	if tooLarge {
		m.pull.appetite.refused = max(m.pull.appetite.refused, bytes)
	} else {
		m.pull.appetite.refused = 0 // that message may be another's by now
	}
	m.order.quiet = m.order.quiet || messages > 0 && !tooLarge
	m.mu.Unlock()
	m.wake()
}
