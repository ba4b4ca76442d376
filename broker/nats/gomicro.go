package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
)

// On a server that others use, too, messages look as go-micro's nats broker
// has them: the subject is the topic, the payload is the JSON of header and
// body, and whatever else arrives is a body. What cannot be a subject travels
// under the prefix as on the embedded engine.

// coverAgain is how long a subject that the stream has is taken for granted:
// somebody else may change the stream.
const coverAgain = 30 * time.Second

// plainPart tells what can be a part of a subject as it is.
func plainPart(part string, pattern bool) bool {
	if part == "" || !pattern && (part == "*" || part == ">") {
		return false
	}
	return strings.IndexFunc(part, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }) < 0
}

// plain is the subject of a topic that can be one. Subjects of the server's own
// and of this broker are none.
func (b *Broker) plain(topic string, pattern bool) (string, bool) {
	if len(topic) > maxSubject || strings.HasPrefix(topic, "$") || strings.HasPrefix(topic, "_INBOX") ||
		topic == b.o.Prefix || strings.HasPrefix(topic, b.o.Prefix+".") || strings.HasPrefix(topic, b.o.Prefix+"-state") {
		return "", false
	}
	parts := strings.Split(topic, ".")
	for i, part := range parts {
		if !plainPart(part, pattern) || part == ">" && i < len(parts)-1 {
			return "", false
		}
	}
	return topic, len(parts) <= maxParts
}

// foreign tells subjects that a pattern matches and that carry no message.
func (b *Broker) foreign(subject string) bool {
	return b.o.GoMicro && (strings.HasPrefix(subject, "$") || strings.HasPrefix(subject, "_INBOX") || strings.HasPrefix(subject, b.o.Prefix+"-state."))
}

// envelope is a message as go-micro has it.
type envelope struct {
	Header map[string]string
	Body   []byte
}

// topicName is the header by which go-micro v1.17 to v4 find the handler of a
// message: without it they drop the message. It is the envelope's, put in here
// and taken out again.
const topicName = "Micro-Topic"

func encodeEnvelope(subject string, m broker.Message) ([]byte, error) {
	e := envelope{make(map[string]string, len(m.Header)+1), m.Body}
	e.Header[topicName] = subject
	maps.Copy(e.Header, m.Header)
	if e.Body == nil {
		e.Body = []byte{}
	}
	return json.Marshal(e)
}

// decodeEnvelope is false for what is a body by itself.
func decodeEnvelope(data []byte) (broker.Message, bool) {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return broker.Message{}, false
	}
	var e struct {
		Header map[string]string
		Body   json.RawMessage
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil || e.Body == nil {
		return broker.Message{}, false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return broker.Message{}, false
	}
	if e.Header == nil {
		e.Header = map[string]string{}
	}
	var body []byte
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return broker.Message{}, false
	}
	return broker.Message{Header: e.Header, Body: body}, true
}

// decode reads what arrived. An odd header is told and left out.
func (b *Broker) decode(subject string, h gonats.Header, data []byte) (broker.Message, error) {
	if b.o.GoMicro && len(h[headerField]) == 0 {
		if m, ok := decodeEnvelope(data); ok {
			if m.Header[topicName] == subject {
				delete(m.Header, topicName)
			}
			return m, nil
		}
	}
	header, err := decodeHeader(h)
	return broker.Message{Header: header, Body: data}, err
}

// covered remembers which subjects the stream takes.
type covered struct {
	looking sync.Mutex // held while the stream is looked at, and changed

	mu    sync.Mutex
	since map[string]time.Time
}

// has tells that the stream had the subject a moment ago.
func (c *covered) has(subject string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.since[subject]) < coverAgain
}

func (c *covered) add(subject string) {
	const most = 1 << 16 // subjects that are remembered
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since == nil || len(c.since) >= most {
		c.since = make(map[string]time.Time)
	}
	c.since[subject] = time.Now()
}

// forget makes the next cover look again.
func (b *Broker) forget(subject string) {
	b.covered.mu.Lock()
	defer b.covered.mu.Unlock()
	delete(b.covered.since, subject)
}

// cover makes sure that the stream takes what is published to a subject, which
// may be a pattern.
func (b *Broker) cover(ctx context.Context, subject string) error {
	if !b.o.GoMicro || strings.HasPrefix(subject, b.o.Prefix+".") {
		return nil
	}
	if first, _, _ := strings.Cut(subject, "."); first == "*" || first == ">" {
		return fmt.Errorf("pattern %s would keep everything on this NATS server: expected one whose first part is no wildcard: %w", subject, errors.ErrUnsupported)
	}
	if b.covered.has(subject) {
		return nil
	}
	b.covered.looking.Lock()
	defer b.covered.looking.Unlock()
	if b.covered.has(subject) {
		return nil
	}
	err := b.amend(ctx, func(c *jetstream.StreamConfig) bool {
		next, there := addSubject(c.Subjects, subject)
		c.Subjects = next
		return !there
	})
	if err != nil {
		return fmt.Errorf("add subject %s to stream %s: %w", subject, b.o.Stream, err)
	}
	b.covered.add(subject)
	return nil
}

// addSubject returns a list that covers the subject, too, and true when it did
// before. What the new one covers goes: a stream's subjects must not overlap.
func addSubject(have []string, subject string) ([]string, bool) {
	var next []string
	for _, s := range have {
		if matches(s, subject) {
			return have, true
		}
		if !matches(subject, s) {
			next = append(next, s)
		}
	}
	return append(next, subject), false
}

// overlap tells that another stream has the subject.
func overlap(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == 10065
}
