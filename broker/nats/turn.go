package nats

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	gonats "github.com/nats-io/nats.go"

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
	other uint64    // the last word of another …
	since time.Time // … and when we saw it first

	until atomic.Pointer[time.Time] // when others may take it from us; nil while we have it not
}

// lease is how long a word counts: no longer than a message is waited for.
func lease(ackWait time.Duration) time.Duration {
	return min(max(ackWait, 2*time.Second), 5*time.Second)
}

// ours tells that nobody else can have the turn. It asks the clock, for a process
// that was stopped for a while does so before it is told anything.
func (t *turn) ours() bool {
	until := t.until.Load()
	return until != nil && time.Now().Before(*until)
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
			t.wait(length / 4)
		} else {
			t.wait(t.claim(length))
		}
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
	until := *t.until.Load()
	ctx, cancel := context.WithDeadline(t.over, earlier(until, start.Add(length/4)))
	defer cancel()
	rev, err := t.say(ctx, t.word(length), t.rev)
	switch {
	case !time.Now().Before(until), wrongSequence(err):
		if t.over.Err() == nil {
			t.lose()
		}
	case err == nil:
		t.have(rev, start.Add(length))
	}
}

// have notes our word.
func (t *turn) have(rev uint64, until time.Time) {
	t.rev = rev
	t.until.Store(&until)
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
	t.until.Store(nil)
	t.member.broker.o.Log.Info("another may have the messages of the ordered queue now", "topic", t.member.topic, "queue", t.member.queue)
	t.member.lose()
}

// claim takes the turn when nobody has it, and returns when to look again.
func (t *turn) claim(length time.Duration) time.Duration {
	again := length / 4
	ctx, cancel := context.WithTimeout(t.over, length/2)
	defer cancel()
	word, rev, err := t.read(ctx)
	if err != nil {
		return again
	}
	name, promised := parseWord(word)
	if name != "" && name != t.name {
		if rev != t.other {
			t.other, t.since = rev, time.Now()
		}
		if rest := promised + promised/4 - time.Since(t.since); rest > 0 {
			return min(rest, again)
		}
	}
	start := time.Now()
	if rev, err = t.say(ctx, t.word(length), rev); err != nil {
		return again // another was quicker, or it is found to be ours
	}
	t.have(rev, start.Add(length))
	t.member.begin()
	return again
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
		return b.replaceWord(ctx, t.subject, word, rev)
	})
}

// read returns the last word and its number, 0 for none.
func (t *turn) read(ctx context.Context) (word string, rev uint64, err error) {
	type read struct {
		word string
		rev  uint64
	}
	b := t.member.broker
	r, err := link.Again(ctx, b.link, func(ctx context.Context) (r read, err error) {
		r.word, r.rev, err = b.word(ctx, t.subject)
		return r, err
	})
	return r.word, r.rev, err
}

// turnSubject is where the one speaks who has an ordered queue's turn.
func (b *Broker) turnSubject(consumer string) string {
	return fmt.Sprintf("%s-state.%s.turn", b.o.Prefix, consumer)
}
