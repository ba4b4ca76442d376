package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
)

// PublishAll implements [broker.Bulk]. The stream's answers come to an inbox
// of this call, so that many messages can be on their way.
func (b *Broker) PublishAll(ctx context.Context, topic string, ids []string, all []broker.Message) []error {
	errs := make([]error, len(all))
	if err := b.mayPublish(topic); err != nil {
		return failAll(errs, err)
	}
	if b.live { // there are no answers
		for i, m := range all {
			errs[i] = b.Publish(ctx, topic, m)
		}
		return errs
	}
	var c bulk
	for i, m := range all {
		if ids[i] != "" && b.published.has(topic, ids[i]) {
			continue // live subscribers, too, shall get it once
		}
		msg, size, err := b.message(topic, ids[i], m)
		if err != nil {
			errs[i] = err
			continue
		}
		c.messages = append(c.messages, msg)
		c.sizes = append(c.sizes, size)
		c.index = append(c.index, i)
	}
	if len(c.messages) == 0 {
		return errs
	}
	for k, err := range b.sendAll(ctx, c.messages) {
		i := c.index[k]
		if errors.Is(err, jetstream.ErrNoStreamResponse) { // somebody has removed it: publish makes it anew
			errs[i] = b.publish(ctx, topic, ids[i], all[i])
		} else {
			errs[i] = published(err, c.sizes[k])
		}
		if errs[i] == nil && ids[i] != "" {
			b.published.add(topic, ids[i])
		}
	}
	return errs
}

// bulk is what goes out together.
type bulk struct {
	messages []*gonats.Msg
	sizes    []int
	index    []int // in the caller's list
}

func failAll(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// sendAll publishes messages of one subject and waits for all answers. What
// has none when the connection breaks is [link.ErrLost].
func (b *Broker) sendAll(ctx context.Context, messages []*gonats.Msg) []error {
	errs := make([]error, len(messages))
	lost, err := b.link.Wait(ctx)
	if err != nil {
		return failAll(errs, err)
	}
	failAll(errs, errNoAnswer)
	answers := make(chan *gonats.Msg, len(messages))
	over, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	refused, err := link.Once(ctx, b.link, func(ctx context.Context) (map[int]error, error) {
		return b.start(ctx, over, messages, answers)
	})
	if err != nil {
		return failAll(errs, err)
	}
	for i, err := range refused {
		errs[i] = err
	}
	doubt := time.NewTicker(doubtAfter)
	defer doubt.Stop()
	for left := len(messages) - len(refused); left > 0; {
		select {
		case answer := <-answers:
			b.note(errs, answer)
			left--
			continue
		default:
		}
		select {
		case answer := <-answers:
			b.note(errs, answer)
			left--
			doubt.Reset(doubtAfter)
		case <-doubt.C:
			if err := b.storesNothing(ctx); err != nil {
				return replace(errs, err)
			}
		case <-lost:
			return replace(errs, link.ErrLost)
		case <-ctx.Done():
			return replace(errs, ctx.Err())
		}
	}
	return errs
}

// errNoAnswer marks what the stream has not answered.
var errNoAnswer = errors.New("the stream has not answered")

func replace(errs []error, err error) []error {
	for i := range errs {
		if errs[i] == errNoAnswer { //nolint:errorlint // the marker itself
			errs[i] = err
		}
	}
	return errs
}

// start sends messages until the connection takes no more, and returns what
// was not sent and why. The answer to message i comes to a subject that ends in
// i, until over ends.
func (b *Broker) start(ctx, over context.Context, messages []*gonats.Msg, answers chan *gonats.Msg) (map[int]error, error) {
	if err := b.cover(ctx, messages[0].Subject); err != nil && !overlap(err) {
		return nil, err
	}
	inbox := b.conn.NewInbox()
	sub, err := b.conn.ChanSubscribe(inbox+".*", answers)
	if err != nil {
		return nil, err
	}
	// Unsubscribing fails when the connection is closed, and then there is nothing to end.
	context.AfterFunc(over, func() { _ = sub.Unsubscribe() })
	refused := map[int]error{}
	for i, msg := range messages {
		msg.Reply = inbox + "." + strconv.Itoa(i)
		err := b.conn.PublishMsg(msg)
		switch {
		case err == nil:
		case overLimit(err): // this one alone
			refused[i] = err
		case i == 0:
			return nil, err // nothing was sent: the link may try again
		default:
			for rest := i; rest < len(messages); rest++ {
				refused[rest] = err
			}
			return refused, nil
		}
	}
	return refused, nil
}

// note reads what the stream answered to one message.
func (b *Broker) note(errs []error, answer *gonats.Msg) {
	i, err := strconv.Atoi(answer.Subject[strings.LastIndexByte(answer.Subject, '.')+1:])
	if err != nil || i < 0 || i >= len(errs) {
		return // nobody was asked for it
	}
	errs[i] = b.taken(answer)
}

// taken is nil when the stream has taken the message.
func (b *Broker) taken(answer *gonats.Msg) error {
	if len(answer.Data) == 0 && answer.Header.Get("Status") == "503" {
		return jetstream.ErrNoStreamResponse
	}
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err != nil || ack.Error == nil && ack.Stream == "":
		return jetstream.ErrInvalidJSAck
	case ack.Error != nil:
		return ack.Error
	case ack.Stream != b.o.Stream && !b.o.GoMicro:
		return fmt.Errorf("stream %s took the message, not %s", ack.Stream, b.o.Stream)
	}
	return nil
}
