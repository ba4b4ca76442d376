package messaging

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
)

// servePublish publishes the request's body and header.
func (m *Messaging) servePublish(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	body, err := m.readBody(w, r)
	if err != nil {
		return err
	}
	message := broker.Message{Header: messageHeader(r.Header, m.o.OwnToken(r)), Body: body}
	if err := m.publish(r.Context(), q.topic, message); err != nil {
		return refusal(err)
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// publish gives the message to the broker.
func (m *Messaging) publish(ctx context.Context, topic string, message broker.Message) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	if err := m.o.Broker.Publish(ctx, topic, message); err != nil {
		return err //nolint:wrapcheck // both callers say what they did
	}
	m.published.Add(1)
	m.o.Topics.Published(topic)
	return nil
}

// readBody reads the whole body, up to the limit.
func (m *Messaging) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := httpmsg.Errorf(http.StatusRequestEntityTooLarge, "the message is larger than %d bytes", m.o.MaxBodySize)
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
// to this one connection or request. Repeated fields are joined (RFC 9110
// section 5.3; Cookie by its own rule, RFC 9113 section 8.2.3).
func messageHeader(h http.Header, ownToken bool) map[string]string {
	drop := map[string]bool{}
	for _, list := range h["Connection"] { // RFC 9110 section 7.6.1
		for name := range strings.SplitSeq(list, ",") {
			drop[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	header := make(map[string]string, len(h))
	for name, values := range h {
		canonical := http.CanonicalHeaderKey(name)
		if drop[canonical] || staysHere(canonical) || ownToken && canonical == "Authorization" {
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
