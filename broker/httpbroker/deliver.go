package httpbroker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// outcome is how a delivery ended.
type outcome int

const (
	taken       outcome = iota // the subscriber said so
	pending                    // it has not answered yet
	unknown                    // it failed after it may have got the message
	unreachable                // there was no connection
	refused                    // it answered that it did not take it
	overrun                    // too much is under way to it already
)

// mayHaveArrived tells that giving the message to another could make two of it.
func (o outcome) mayHaveArrived() bool { return o == taken || o == pending || o == unknown }

// send posts the payload to a subscriber and waits for the answer a moment.
// What takes longer goes on in the background.
func (b *Broker) send(ctx context.Context, t target, payload []byte) outcome {
	weight := weigh(payload)
	slow := t.peer.isSlow()
	if !t.peer.reserve(ctx, weight) {
		if ctx.Err() == nil && t.peer.settle(overrun, time.Now()) {
			b.log.Warn("http broker: a subscriber does not keep up, it misses messages", "node", t.node.id, "address", t.node.addr)
		}
		return overrun
	}
	result := make(chan outcome, 1)
	b.sends.Go(func() {
		defer t.peer.underWay.Release(weight)
		o, err := b.post(t, payload)
		if t.peer.settle(o, time.Now()) && b.ctx.Err() == nil {
			b.report(t, err)
		}
		result <- o
	})
	if slow {
		return pending
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case o := <-result:
		return o
	case <-timer.C:
		t.peer.markSlow()
	case <-ctx.Done():
	}
	return pending
}

// report logs that a subscriber began to fail, or that it is well again.
func (b *Broker) report(t target, err error) {
	if err != nil {
		b.log.Info("http broker: a subscriber did not take a message", "node", t.node.id, "address", t.node.addr, "error", err)
		return
	}
	b.log.Info("http broker: a subscriber takes messages again", "node", t.node.id, "address", t.node.addr)
}

// post makes the request. Its context is the broker's, not the publisher's: a
// message that is on its way is not torn off when the publisher leaves.
func (b *Broker) post(t target, payload []byte) (outcome, error) {
	ctx, cancel := context.WithTimeout(b.ctx, deliveryTimeout)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url(), bytes.NewReader(payload))
	if err != nil {
		return unreachable, fmt.Errorf("deliver: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := b.client.Do(request)
	if err != nil {
		if connected.Load() {
			return unknown, fmt.Errorf("deliver: %w", err)
		}
		return unreachable, fmt.Errorf("deliver: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection can be used again
	switch status := response.StatusCode; {
	case status < 300:
		return taken, nil
	case status < 500 || status == http.StatusServiceUnavailable:
		return refused, fmt.Errorf("deliver: the subscriber answered %s", response.Status)
	default:
		return unknown, fmt.Errorf("deliver: the subscriber answered %s", response.Status)
	}
}

// url is where the subscriber takes deliveries.
func (t target) url() string {
	u := url.URL{
		Scheme:   "http",
		Host:     t.node.addr,
		Path:     generations()[t.generation].path,
		RawQuery: url.Values{"id": {t.node.id}}.Encode(),
	}
	if t.secure {
		u.Scheme = "https"
	}
	return u.String()
}
