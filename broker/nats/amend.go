package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/sleep"
)

// The configuration of a stream is read, changed and written as a whole, and
// NATS compares nothing: of two brokers that do so at the same time one would
// undo what the other has done, and a topic be taken by no stream. So they take
// turns, under a lock that is a word in the stream of states.

const (
	// lockFor is how long the word of a broker counts that is gone; others have
	// ended before that.
	lockFor  = 4 * time.Second
	lockHeld = 3 * time.Second
	// lockLook is how often it is looked at by those who wait.
	lockLook = 20 * time.Millisecond
)

// amend makes sure that the stream's configuration is as change wants it, which
// changes what is not and reports that.
func (b *Broker) amend(ctx context.Context, change func(*jetstream.StreamConfig) bool) error {
	if _, differs, err := b.wanted(ctx, change); err != nil || !differs {
		return err
	}
	return b.alone(ctx, func(ctx context.Context) error {
		for range 5 { // a sidecar of before this lock may change it, too
			config, differs, err := b.wanted(ctx, change)
			if err != nil || !differs {
				return err
			}
			if _, err := b.js.UpdateStream(ctx, config); err != nil {
				return err
			}
		}
		return errors.New("others change it all the time")
	})
}

// wanted is the stream's configuration after the change, and whether that
// differs from what it is.
func (b *Broker) wanted(ctx context.Context, change func(*jetstream.StreamConfig) bool) (config jetstream.StreamConfig, differs bool, err error) {
	stream, err := b.js.Stream(ctx, b.o.Stream)
	if err != nil {
		return config, false, err
	}
	config = stream.CachedInfo().Config
	differs = change(&config)
	return config, differs, nil
}

// alone calls f while no other broker is in here.
func (b *Broker) alone(ctx context.Context, f func(context.Context) error) error {
	subject := b.o.Prefix + "-state.configuring"
	if err := b.openState(ctx); err != nil {
		return err
	}
	var other uint64    // the word of another …
	var since time.Time // … and when we saw it first
	for {
		word, rev, err := b.word(ctx, subject)
		if rev != other {
			other, since = rev, time.Now()
		}
		if err == nil && (word == "" || time.Since(since) > lockFor) {
			if rev, err = b.replaceWord(ctx, subject, "locked", rev); err == nil {
				defer b.unlock(ctx, subject, rev)
				ctx, cancel := context.WithTimeout(ctx, lockHeld)
				defer cancel()
				return f(ctx)
			}
		}
		if err != nil && !wrongSequence(err) && !leaderless(err) {
			return fmt.Errorf("lock the configuration: %w", err)
		}
		if err := sleep.For(ctx, lockLook/2+rand.N(lockLook)); err != nil {
			return err
		}
	}
}

// leaderless tells that nobody answers for a stream: a cluster has yet to choose
// who does.
func leaderless(err error) bool {
	return errors.Is(err, gonats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// unlock ends what alone began. What fails is over after lockFor.
func (b *Broker) unlock(ctx context.Context, subject string, rev uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := b.replaceWord(ctx, subject, "", rev); err != nil {
		b.o.Log.Debug("broker: unlock the stream's configuration", "error", err)
	}
}

// word reads what was said last under a subject of the states, and its number;
// 0 for none.
func (b *Broker) word(ctx context.Context, subject string) (word string, rev uint64, err error) {
	m, err := b.lastState(ctx, subject)
	if m == nil {
		return "", 0, err
	}
	return string(m.Data), m.Sequence, nil
}

// replaceWord replaces the word with the number rev, 0 for none, and returns the
// number of the new one. [wrongSequence] tells that somebody was quicker.
func (b *Broker) replaceWord(ctx context.Context, subject, word string, rev uint64) (uint64, error) {
	ack, err := b.js.PublishMsg(ctx, &gonats.Msg{Subject: subject, Data: []byte(word)},
		jetstream.WithRetryAttempts(0), jetstream.WithExpectLastSequencePerSubject(rev))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// wrongSequence tells that another has said something meanwhile.
func wrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}
