package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/broker"
)

const (
	// requestExpires is how long a request for messages waits at the server,
	// which says every heartbeat that it is still there.
	requestExpires = 30 * time.Second
	heartbeat      = 5 * time.Second
	// silence is how long nothing may be heard while a request waits.
	silence = 2*heartbeat + time.Second
	// seenEvery is how often a member says that it is there.
	seenEvery = time.Minute
	// lookEvery is how often a member of an ordered queue that collects looks
	// whether it has all.
	lookEvery = 100 * time.Millisecond
	// retry is the time between two tries of what failed.
	retry = 200 * time.Millisecond
	// leaveTimeout bounds the giving back of what is held when a broker is closed.
	leaveTimeout = 5 * time.Second
)

// member implements [broker.Member]. It asks the server for as many messages
// as it may hold, in an inbox of its own; what arrives waits in ready.
type member struct {
	broker   *Broker
	topic    string
	exact    bool
	queue    string
	o        broker.JoinOptions
	consumer string // its name

	ready  chan *holding // nil says that the turn was lost
	kick   chan struct{} // a token: there may be room for more
	ended  context.Context
	end    context.CancelFunc
	worker sync.WaitGroup
	late   sync.WaitGroup // messages that came after the end and are being given back

	// Of an ordered queue; turn and slots are nil otherwise.
	turn  *turn
	slots chan struct{} // one for each message that is given out, when the prefetch bounds that

	appetite appetite // on mu
	acks     acks

	mu       sync.Mutex
	wait     time.Duration // the queue's AckWait
	inFlight int           // the queue's MaxInFlight
	created  time.Time     // when the consumer was made
	sub      *gonats.Subscription
	asked    int  // messages that were asked for and have not come
	broken   bool // what was asked for will not come: begin anew
	again    bool // … and declare the queue anew
	heard    time.Time
	holdings map[*holding]struct{}

	// Of an ordered queue, see turn.go.
	active     bool       // we have the turn
	collecting bool       // what comes is collected …
	collected  []*holding // … here
	began      time.Time
	missing    int       // how many messages are to come
	doubtful   time.Time // until then their number may be wrong
	early      bool      // they were asked for before their time was over
	next       uint64    // the number of the next delivery; 0 is any
	settled    int       // how many messages were settled
}

// Join implements [broker.Durable].
func (b *Broker) Join(ctx context.Context, topic, queue string, o broker.JoinOptions) (broker.Member, error) {
	info, err := b.declare(ctx, topic, queue, o.QueueOptions)
	if err != nil {
		return nil, fmt.Errorf("join queue %q of topic %q: %w", queue, topic, err)
	}
	o.Prefetch = max(o.Prefetch, 1)
	m := &member{
		broker: b, topic: topic, exact: b.exact(topic), queue: queue, o: o, consumer: info.Name, wait: info.Config.AckWait,
		appetite: appetite{budget: o.PrefetchBytes},
		kick:     make(chan struct{}, 1), broken: true, created: info.Created, inFlight: max(info.Config.MaxAckPending, 0),
		holdings: make(map[*holding]struct{}),
	}
	if m.inFlight > 0 {
		m.turn = m.newTurn()
		if o.Prefetch < m.inFlight {
			m.slots = make(chan struct{}, o.Prefetch)
		}
	}
	m.ready = make(chan *holding, m.limit()+1)
	m.ended, m.end = context.WithCancel(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.members == nil {
		return nil, broker.ErrClosed
	}
	b.members[m] = struct{}{}
	m.worker.Go(m.run)
	m.worker.Go(m.tellSeen)
	m.worker.Go(m.repeatAcks)
	if m.turn != nil {
		go m.turn.run()
	}
	return m, nil
}

// Receive implements [broker.Member].
func (m *member) Receive(ctx context.Context) (*broker.Held, error) {
	for {
		if m.ended.Err() != nil {
			return nil, broker.ErrClosed
		}
		if err := m.takeSlot(ctx); err != nil {
			return nil, err
		}
		select {
		case h := <-m.ready:
			if h == nil {
				m.freeSlot()
				return nil, broker.ErrLapsed
			}
			if m.give(h) {
				return h.held, nil
			}
		case <-ctx.Done():
			m.freeSlot()
			return nil, ctx.Err()
		case <-m.ended.Done():
			return nil, broker.ErrClosed
		}
		m.freeSlot()
	}
}

// Next implements [broker.Eager].
func (m *member) Next() (*broker.Held, bool) {
	for m.turn == nil && m.ended.Err() == nil { // who has a turn is told more than that nothing is there
		select {
		case h := <-m.ready:
			if h.held.Fresh() {
				return h.held, true
			}
		default:
			return nil, false
		}
	}
	return nil, false
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
		if err := m.ask(); err != nil {
			m.broker.o.Log.Debug("broker: ask for messages", "topic", m.topic, "queue", m.queue, "error", err)
			pause(m.ended, retry)
			continue
		}
		var look <-chan time.Time
		if m.turn != nil && !m.complete() {
			look = time.After(lookEvery)
		}
		select {
		case <-look:
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
	if m.asked > 0 && time.Since(m.heard) > silence {
		m.broken = true
	}
}

// fail notes that what was asked for will not come.
func (m *member) fail(redeclare bool) {
	m.mu.Lock()
	m.broken, m.again = true, m.again || redeclare
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
// quick member does not send a request for each message.
func (m *member) ask() error {
	m.mu.Lock()
	broken, again, standby := m.broken, m.again, m.turn != nil && !m.active
	m.mu.Unlock()
	if standby {
		return nil
	}
	if broken {
		if err := m.renew(again); err != nil {
			return err
		}
	}
	m.mu.Lock()
	batch, most := m.want()
	if m.sub == nil || batch == 0 {
		m.mu.Unlock()
		return nil
	}
	m.asked += batch
	m.appetite.ask(most)
	m.heard = time.Now()
	inbox := m.sub.Subject
	m.mu.Unlock()
	request, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
		MaxBytes  int           `json:"max_bytes,omitempty"`
	}{batch, requestExpires, heartbeat, most})
	if err != nil {
		return err
	}
	if err := m.broker.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+m.broker.o.Stream+"."+m.consumer, inbox, request); err != nil {
		m.fail(false)
		return err
	}
	return nil
}

// want is how many messages shall be asked for, and how many bytes of them; 0
// is any. m.mu is held.
func (m *member) want() (batch, most int) {
	if m.collecting {
		return m.wantMissing()
	}
	room := m.limit() - len(m.holdings) - m.asked
	if room <= 0 || m.asked > 0 && room < (m.limit()+1)/2 {
		return 0, 0
	}
	return m.appetite.want(room, m.asked > 0, len(m.holdings) > 0)
}

// renew begins with a new inbox: what was asked for under the old one can not
// come any more, so that the member never holds more than it may.
func (m *member) renew(redeclare bool) error {
	if redeclare {
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
		if m.turn != nil && anew { // what we have is none of this one's
			m.forget()
		}
	}
	m.drop()
	sub, err := m.broker.conn.Subscribe(m.broker.conn.NewInbox(), m.take)
	if err != nil {
		return err
	}
	// The prefetch bounds what waits.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return errors.Join(err, sub.Unsubscribe())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.turn != nil && !m.active { // meanwhile
		return sub.Unsubscribe()
	}
	m.sub, m.asked, m.broken, m.again = sub, 0, false, false
	if m.next = 0; m.turn != nil {
		m.collect()
	}
	return nil
}

// drop ends the inbox.
func (m *member) drop() {
	m.mu.Lock()
	sub := m.sub
	m.sub = nil
	m.mu.Unlock()
	if sub != nil {
		// It fails when the connection is closed, and then there is nothing to end.
		_ = sub.Unsubscribe()
	}
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
	if m.sub == nil || m.ended.Err() != nil || msg.Sub != m.sub { // too late
		m.mu.Unlock()
		m.late.Go(h.giveBack)
		return
	}
	m.asked--
	m.heard = time.Now()
	m.holdings[h] = struct{}{}
	m.appetite.take(h.size)
	wait := m.wait
	if m.turn != nil {
		wait = fenced(wait)
	}
	h.held = broker.Hold(h.stored, attempt, wait, h)
	collected := m.turn != nil && m.arrived(h)
	m.mu.Unlock()
	if !collected {
		select {
		case m.ready <- h:
		case <-m.ended.Done(): // leave returns it
		}
	}
	if m.room() {
		m.wake()
	}
}

// room tells that ask would ask.
func (m *member) room() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	batch, _ := m.want()
	return batch > 0
}

// status is what the server says of a request.
func (m *member) status(msg *gonats.Msg) {
	m.mu.Lock()
	m.heard = time.Now()
	current := msg.Sub == m.sub
	m.mu.Unlock()
	if !current {
		return
	}
	switch msg.Header.Get("Status") {
	case "100": // a heartbeat
	case "408", "404": // it has expired, and says how much of it was not given
		rest, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			m.fail(false)
			return
		}
		m.mu.Lock()
		m.asked = max(m.asked-rest, 0)
		m.mu.Unlock()
		m.wake()
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
		pause(m.ended, retry/10)
		m.fail(true)
	}
}

// Drain implements [broker.Member].
func (m *member) Drain(ctx context.Context) error {
	m.end()
	m.worker.Wait()
	m.drainInbox(ctx)
	m.late.Wait()
	var waiting []*broker.Held
	for {
		select {
		case h := <-m.ready:
			if h != nil {
				waiting = append(waiting, h.held)
			}
			continue
		default:
		}
		m.mu.Lock()
		for _, h := range m.collected {
			waiting = append(waiting, h.held)
		}
		m.collected = nil
		m.mu.Unlock()
		return m.returnAll(ctx, waiting)
	}
}

// Close implements [broker.Member].
func (m *member) Close(ctx context.Context) error {
	m.broker.mu.Lock()
	delete(m.broker.members, m)
	m.broker.mu.Unlock()
	return m.leave(ctx)
}

func (m *member) leave(ctx context.Context) error {
	drained := m.Drain(ctx)
	m.mu.Lock()
	all := make([]*broker.Held, 0, len(m.holdings))
	for h := range m.holdings {
		all = append(all, h.held)
	}
	m.mu.Unlock()
	returned := m.returnAll(ctx, all)
	if m.turn != nil { // what another shall begin with is there
		m.turn.end()
		<-m.turn.ended
	}
	return errors.Join(drained, returned)
}

func (m *member) ackWait() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wait
}

// returnAll gives messages back, side by side.
func (m *member) returnAll(ctx context.Context, all []*broker.Held) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, h := range all {
		wg.Go(func() {
			err := h.Return(ctx)
			if !errors.Is(err, broker.ErrSettled) && !errors.Is(err, broker.ErrLapsed) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil { // one is enough: they have the same cause
			return fmt.Errorf("give back %d messages of queue %q of topic %q: %w", len(all), m.queue, m.topic, err)
		}
	}
	return nil
}

// drainInbox ends the inbox after what is under way to it has come, so that it can
// be given back: what got lost here would come again only when its time is
// over, and count.
func (m *member) drainInbox(ctx context.Context) {
	m.mu.Lock()
	sub := m.sub
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

// leaveAll closes members when the broker is closed. What cannot be given back
// comes again when its time is over.
func (b *Broker) leaveAll(members map[*member]struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for m := range members {
		wg.Go(func() {
			if err := m.leave(ctx); err != nil {
				b.o.Log.Warn("broker: close", "error", err)
			}
		})
	}
	wg.Wait()
}

// tellSeen says at once, now and then, and at the end that the member is there.
func (m *member) tellSeen() {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ended), time.Second)
		said := memberHere
		if m.ended.Err() != nil {
			said = memberGone
		}
		err := m.broker.setState(ctx, m.broker.seenSubject(m.consumer), said)
		cancel()
		if err != nil {
			m.broker.o.Log.Debug("broker: tell that a member is there", "topic", m.topic, "queue", m.queue, "error", err)
		}
		if said == memberGone {
			return
		}
		select {
		case <-tick.C:
		case <-m.ended.Done():
		}
	}
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

var _ interface {
	broker.Durable
	broker.Deduplicator
	broker.Queues
	broker.Wildcards
	broker.Bulk
} = (*Broker)(nil)

var _ broker.Eager = (*member)(nil)
