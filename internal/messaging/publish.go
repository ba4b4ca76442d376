package messaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
)

// The fields of a message that say how it is published. Micro-Id stays in the
// message, for its receivers; Micro-Delay does not.
const (
	idField    = "Micro-Id"
	delayField = "Micro-Delay"
)

const (
	// maxHeaders and maxHeaderSize bound a message's header; every engine
	// holds as much.
	maxHeaders    = 256
	maxHeaderSize = 48 << 10
	// maxID bounds an ID in bytes.
	maxID = 256
)

// outgoing is a message that is to be published.
type outgoing struct {
	broker.Message
	id    string        // "" without
	delay time.Duration // 0: at once
}

// servePublish publishes the request's body and header.
func (m *Messaging) servePublish(w http.ResponseWriter, r *http.Request, q query) error {
	out, err := m.prepare(r)
	if err != nil {
		return err
	}
	if out.Body, err = m.readBody(w, r); err != nil {
		return err
	}
	if err := m.publish(r.Context(), q.topic, out); err != nil {
		return refusal(err)
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// prepare makes a message without a body of a request.
func (m *Messaging) prepare(r *http.Request) (outgoing, error) {
	out := outgoing{Message: broker.Message{Header: messageHeader(r.Header)}}
	if err := checkHeader(out.Header); err != nil {
		return out, httpmsg.Errorf(http.StatusRequestHeaderFieldsTooLarge, "%v", err)
	}
	out.id = out.Header[idField]
	if len(out.id) > maxID {
		return out, httpmsg.Errorf(http.StatusBadRequest, "%s: %d bytes, at most %d", idField, len(out.id), maxID)
	}
	if text, ok := out.Header[delayField]; ok {
		var err error
		if out.delay, err = parseDelay(text); err != nil {
			return out, httpmsg.Errorf(http.StatusBadRequest, "%s: %v", delayField, err)
		}
		delete(out.Header, delayField)
	}
	return out, nil
}

// An engine may have messages of publishers that know no such limit: what is
// beyond these is posted to no application. Our own fields of a dead letter fit
// between.
const (
	maxReceivedHeaders    = maxHeaders + 16
	maxReceivedHeaderSize = maxHeaderSize + 8<<10
)

// checkHeader says what is too much in the header of a message that is to be
// published.
func checkHeader(h map[string]string) error {
	return boundHeader(h, maxHeaders, maxHeaderSize)
}

// boundHeader holds a header against limits of its fields and bytes.
func boundHeader(h map[string]string, fields, bytes int) error {
	size := 0
	for k, v := range h {
		size += len(k) + len(v)
	}
	switch {
	case len(h) > fields:
		return fmt.Errorf("the message has %d header fields, at most %d", len(h), fields)
	case size > bytes:
		return fmt.Errorf("the message's header is %d bytes, at most %d", size, bytes)
	}
	return nil
}

// publish gives the message to the broker.
func (m *Messaging) publish(ctx context.Context, topic string, out outgoing) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	if err := Publish(ctx, m.o.Broker, topic, out.Message, PublishOptions{ID: out.id, Delay: out.delay, NotDurable: m.o.NotDurable}); err != nil {
		return err
	}
	m.published.Add(1)
	m.o.Topics.Published(topic)
	return nil
}

// readBody reads the whole body, up to the limit.
func (m *Messaging) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := httpmsg.Errorf(http.StatusRequestEntityTooLarge, "the message is larger than %d bytes (--max_body_size)", m.o.MaxBodySize)
	if r.ContentLength > m.o.MaxBodySize {
		return nil, tooLarge
	}
	var body bytes.Buffer
	if r.ContentLength > 0 {
		// A length is only a promise: what is allocated for it is bounded.
		body.Grow(int(min(r.ContentLength, 64<<10)) + bytes.MinRead)
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, m.o.MaxBodySize))
	switch limit := (*http.MaxBytesError)(nil); {
	case errors.As(err, &limit):
		return nil, tooLarge
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, httpmsg.Errorf(http.StatusBadRequest, "the message ended early, after %d bytes", body.Len())
	case err != nil:
		return nil, httpmsg.Errorf(http.StatusBadRequest, "read the message: %v", err)
	}
	return body.Bytes(), nil
}

// messageHeader makes a message's header of a request's: all but what belongs
// to this one connection or request, or is not for publishers to set. Repeated
// fields are joined (RFC 9110 section 5.3; Cookie by its own rule, RFC 9113
// section 8.2.3). Authorization is the application's: what is meant for the
// sidecar does not come this far.
func messageHeader(h http.Header) map[string]string {
	drop := map[string]bool{}
	for _, list := range h["Connection"] { // RFC 9110 section 7.6.1
		for name := range strings.SplitSeq(list, ",") {
			drop[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	header := make(map[string]string, len(h))
	for name, values := range h {
		canonical := http.CanonicalHeaderKey(name)
		if drop[canonical] || staysHere(canonical) || ours(canonical) {
			continue
		}
		separator := ", "
		if canonical == "Cookie" {
			separator = "; "
		}
		header[name] = strings.Join(values, separator)
	}
	return header
}

// staysHere tells the fields that say nothing about the message: those of the
// connection (RFC 9110 section 7.6.1), of the transfer, and the sidecar's token.
func staysHere(canonical string) bool {
	switch canonical {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
		"Content-Length", "Host", "Expect", "Accept-Encoding", "Micro-Token":
		return true
	}
	return false
}
