package nats

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
)

// turn is a member's claim on an ordered queue. Who has the turn says so, again
// and again, under the queue's subject in the stream of states, and each word
// replaces the one before it or fails. A word of another that has not changed
// for longer than it promised is of a member that is gone. Nobody's clock is
// compared with another's.
type turn struct {
	member  *member
	name    string
	subject string
	kick    chan struct{} // a token: somebody has said something
	over    context.Context
	end     context.CancelFunc
	ended   chan struct{}

	// What follows is run's alone.
	rev   uint64    // of our word while we have the turn; 0 while not
	until time.Time // when others may take it from us
	other uint64    // the last word of another …
	since time.Time // … and when we saw it first
}

// lease is how long a word counts: no longer than a message is waited for.
func lease(ackWait time.Duration) time.Duration {
	return min(max(ackWait, 2*time.Second), 10*time.Second)
}

func (m *member) newTurn() *turn {
	t := &turn{
		member: m, name: rand.Text(), subject: m.broker.turnSubject(m.consumer),
		kick: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	t.over, t.end = context.WithCancel(context.Background())
	return t
}

// run claims the turn and keeps it until end; then it passes it on.
func (t *turn) run() {
	defer close(t.ended)
	sub, err := t.member.broker.conn.Subscribe(t.subject, func(*gonats.Msg) {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	})
	if err == nil { // without it we look now and then
		// It fails when the connection is closed, and then there is nothing to end.
		defer func() { _ = sub.Unsubscribe() }()
	}
	for t.over.Err() == nil {
		length := lease(t.member.ackWait())
		if t.rev != 0 {
			t.renew(length)
		} else {
			t.claim(length)
		}
		t.wait(length / 4)
	}
	if t.rev != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := t.say(ctx, "", t.rev); err != nil {
			t.member.broker.o.Log.Debug("broker: pass on the turn", "queue", t.member.queue, "error", err)
		}
	}
}

// wait returns after the time, or when another has said something.
func (t *turn) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-t.over.Done():
			return
		case <-t.kick:
			if t.rev == 0 { // else it is our own word
				return
			}
		}
	}
}

// renew says that we are still there.
func (t *turn) renew(length time.Duration) {
	start := time.Now()
	ctx, cancel := context.WithDeadline(t.over, earlier(t.until, start.Add(length/4)))
	defer cancel()
	rev, err := t.say(ctx, t.word(length), t.rev)
	switch {
	case err == nil:
		t.rev, t.until = rev, start.Add(length)
	case t.over.Err() != nil:
	case wrongSequence(err) || !time.Now().Before(t.until):
		t.lose()
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// lose ends the turn: what the member has is not its own any more.
func (t *turn) lose() {
	t.rev = 0
	t.member.broker.o.Log.Info("another may have the messages of the ordered queue now", "topic", t.member.topic, "queue", t.member.queue)
	t.member.lose()
}

// claim takes the turn when nobody has it.
func (t *turn) claim(length time.Duration) {
	ctx, cancel := context.WithTimeout(t.over, length/2)
	defer cancel()
	word, rev, err := t.read(ctx)
	if err != nil {
		return
	}
	name, promised := parseWord(word)
	passedOn := word == ""
	if name != "" && name != t.name {
		if rev != t.other {
			t.other, t.since = rev, time.Now()
		}
		if time.Since(t.since) < promised+promised/4 {
			return
		}
	}
	start := time.Now()
	if rev, err = t.say(ctx, t.word(length), rev); err != nil {
		return // another was quicker, or it is found to be ours
	}
	t.rev, t.until = rev, start.Add(length)
	t.member.begin(passedOn)
}

// word is what the one says who has the turn: a name, and how long that counts.
func (t *turn) word(length time.Duration) string {
	return t.name + " " + strconv.FormatInt(length.Milliseconds(), 10)
}

func parseWord(word string) (name string, promised time.Duration) {
	name, text, _ := strings.Cut(word, " ")
	ms, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		ms = uint64(lease(0).Milliseconds())
	}
	return name, time.Duration(ms) * time.Millisecond
}

// say replaces the word with the number rev; 0 is for none.
func (t *turn) say(ctx context.Context, word string, rev uint64) (uint64, error) {
	b := t.member.broker
	return link.Once(ctx, b.link, func(ctx context.Context) (uint64, error) {
		ack, err := b.js.PublishMsg(ctx, &gonats.Msg{Subject: t.subject, Data: []byte(word)},
			jetstream.WithRetryAttempts(0), jetstream.WithExpectLastSequencePerSubject(rev))
		if err != nil {
			return 0, err
		}
		return ack.Sequence, nil
	})
}

// read returns the last word and its number, 0 for none.
func (t *turn) read(ctx context.Context) (word string, rev uint64, err error) {
	type read struct {
		word string
		rev  uint64
	}
	b := t.member.broker
	r, err := link.Again(ctx, b.link, func(ctx context.Context) (read, error) {
		stream, err := b.stateHandle(ctx)
		if err != nil {
			return read{}, err
		}
		m, err := stream.GetLastMsgForSubject(ctx, t.subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return read{}, nil
		}
		if err != nil {
			return read{}, err
		}
		return read{string(m.Data), m.Sequence}, nil
	})
	return r.word, r.rev, err
}

// wrongSequence tells that another has said something meanwhile.
func wrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// fenced is how long a member of an ordered queue may hold a message: less than
// the server waits, so that no word of it arrives when the message is with
// another, who could not tell then that the server has given him all.
func fenced(wait time.Duration) time.Duration { return wait - wait/5 }

// begin is called when the member has the turn. It was passed on by the member
// before, or that is gone, and may have said something late.
func (m *member) begin(passedOn bool) {
	m.mu.Lock()
	m.active, m.broken = true, true
	m.doubtful = time.Time{}
	if !passedOn {
		m.doubtful = time.Now().Add(m.wait)
	}
	m.mu.Unlock()
	m.wake()
}

// lose is called when it has it no more.
func (m *member) lose() {
	m.mu.Lock()
	m.active, m.broken = false, true
	m.mu.Unlock()
	m.drop()
	m.forget()
}

// forget is called when what the member has is not its own any more.
func (m *member) forget() {
	m.mu.Lock()
	m.collected = nil
	lost := make([]*broker.Held, 0, len(m.holdings))
	for h := range m.holdings {
		lost = append(lost, h.held)
		m.giveSlot(h)
	}
	clear(m.holdings)
	m.appetite.held = 0
	m.mu.Unlock()
	for _, h := range lost {
		h.Lose()
	}
	select {
	case m.ready <- nil: // Receive says so, after what is in front of it and has lapsed
	case <-m.ended.Done():
	}
}

// A member that begins, or whose connection broke, does not know yet what the
// server has given to somebody else, or to nobody: that comes again when its
// time is over, and later messages must not overtake it. Until all that is not
// acknowledged is here, what comes is collected.

// collectFor is how much longer than AckWait that may take; then there are
// only messages left whose Nack had a delay.
const collectFor = 5 * time.Second

// arrived notes a delivery of an ordered queue and reports that it was
// collected. A number that does not follow tells that one got lost. m.mu is
// held.
func (m *member) arrived(h *holding) bool {
	if h.number != m.next && m.next != 0 && !m.collecting {
		m.collect()
	}
	m.next = h.number + 1
	if m.collecting {
		m.collected = append(m.collected, h)
	}
	return m.collecting
}

// collect begins to collect. m.mu is held.
func (m *member) collect() {
	m.collecting, m.began, m.missing, m.early = true, time.Now(), 0, false
}

// wantMissing is want while the member collects: what was given back is there
// at once, the rest comes only when its time is over, and before what is new.
// m.mu is held.
func (m *member) wantMissing() (batch, most int) {
	switch {
	case m.missing <= 0 || m.asked > 0:
		return 0, 0
	case time.Since(m.began) > m.wait:
		return m.missing, 0
	case m.early:
		return 0, 0
	}
	m.early = true
	return m.missing, m.appetite.budget
}

// complete ends collecting when the server has given nothing to anybody else,
// and reports false when that is not so yet.
func (m *member) complete() bool {
	m.mu.Lock()
	collecting, settled, here := m.collecting, m.settled, m.distinct()
	m.mu.Unlock()
	if !collecting {
		return true
	}
	ctx, cancel := context.WithTimeout(m.ended, leaveTimeout)
	defer cancel()
	info, err := link.Again(ctx, m.broker.link, func(ctx context.Context) (*jetstream.ConsumerInfo, error) {
		consumer, err := m.broker.js.Consumer(ctx, m.broker.o.Stream, m.consumer)
		if err != nil {
			return nil, err
		}
		return consumer.CachedInfo(), nil
	})
	if err != nil {
		m.broker.o.Log.Debug("broker: look at an ordered queue", "topic", m.topic, "queue", m.queue, "error", err)
		return false
	}
	m.mu.Lock()
	m.missing = info.NumAckPending - here
	late := time.Since(m.began) > m.wait+m.wait/4+collectFor
	all := info.NumAckPending == here && m.settled == settled && (here == 0 || time.Now().After(m.doubtful))
	m.mu.Unlock()
	switch {
	case all:
	case late:
		m.broker.o.Log.Warn("messages of an ordered queue do not come: those behind them go on", "topic", m.topic, "queue", m.queue, "missing", info.NumAckPending-here)
	default:
		if err := m.ask(); err != nil {
			m.broker.o.Log.Debug("broker: ask for messages", "topic", m.topic, "queue", m.queue, "error", err)
		}
		return false
	}
	m.giveOut()
	m.wake()
	return true
}

// distinct is how many messages are here. m.mu is held.
func (m *member) distinct() int {
	if len(m.holdings) < 2 {
		return len(m.holdings)
	}
	seen := make(map[uint64]struct{}, len(m.holdings))
	for h := range m.holdings {
		seen[h.seq] = struct{}{}
	}
	return len(seen)
}

// giveOut gives out what was collected, in order, and ends collecting.
func (m *member) giveOut() {
	for {
		m.mu.Lock()
		collected := m.collected
		m.collected = nil
		if len(collected) == 0 || !m.collecting {
			m.collecting = false
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		slices.SortFunc(collected, func(a, b *holding) int { return cmp.Compare(a.seq, b.seq) })
		for _, h := range collected {
			select {
			case m.ready <- h:
			case <-m.ended.Done(): // leave returns it
			}
		}
	}
}

// limit is how many messages the member may have, given out or not.
func (m *member) limit() int {
	if m.turn != nil {
		return m.inFlight
	}
	return m.o.Prefetch
}

// takeSlot waits until a message may be given out: a member of an ordered queue
// may have more than its prefetch.
func (m *member) takeSlot(ctx context.Context) error {
	if m.slots == nil {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ended.Done():
		return broker.ErrClosed
	}
}

// freeSlot is for a slot that no message has.
func (m *member) freeSlot() {
	if m.slots != nil {
		<-m.slots
	}
}

// give notes that a message has a slot, unless it is lost already.
func (m *member) give(h *holding) bool {
	if m.slots == nil {
		return h.held.Fresh()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, h.slot = m.holdings[h]
	return h.slot
}

// giveSlot ends what give began. m.mu is held.
func (m *member) giveSlot(h *holding) {
	if h.slot {
		h.slot = false
		<-m.slots
	}
}

// turnSubject is where the one speaks who has an ordered queue's turn.
func (b *Broker) turnSubject(consumer string) string {
	return fmt.Sprintf("%s-state.%s.turn", b.o.Prefix, consumer)
}
