package messaging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/micro/sidecar/broker"
)

const (
	// backoffFirst doubles with every attempt up to backoffMost, give or take
	// a fifth.
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 30 * time.Second
	// maxRetryAfter bounds what an application may ask for.
	maxRetryAfter = 24 * time.Hour
	// maxAnswer is how much of an answer's body is read, so that its connection
	// can be used again, and how large its head may be.
	maxAnswer = 64 << 10
)

// The fields that a message gets on its way to the application, and the one
// that the application may answer with.
const (
	topicField   = "Micro-Topic"
	attemptField = "Micro-Attempt"
	// headerField holds, as a JSON object, the fields of a message that HTTP
	// cannot carry.
	headerField = "Micro-Header"
	ackField    = "Micro-Ack" // ack, nack or term
)

// verdict is what an application has said of a message.
type verdict int

const (
	again  verdict = iota // deliver it again, later
	done                  // acknowledged
	dead                  // a dead letter
	absent                // it never reached the application
)

// answer is a verdict with what goes with it.
type answer struct {
	verdict
	reason string        // for people
	after  time.Duration // what Retry-After asks for; 0 when it does not
	// unhealthy: the application was not healthy for some of the time that it
	// had the message, though it may be by now.
	unhealthy bool
}

// deliver posts a message until something has become of it.
func (w *Pusher) deliver(h *broker.Held) {
	if w.passOver(h) {
		return
	}
	stopExtending := w.keep(h)
	defer stopExtending()
	for try := 1; ; try++ {
		a := w.attempt(w.killed, h)
		if a.verdict == absent && w.pause(backoff(try)) {
			continue // nobody had it: nothing happened
		}
		if !w.settle(h, a) {
			w.giveBack(h)
		}
		return
	}
}

// attempt makes one request, and notes whether the application was healthy. A
// message whose header is beyond all measure is a dead letter.
func (w *Pusher) attempt(ctx context.Context, h *broker.Held) answer {
	if err := boundHeader(h.Header, maxReceivedHeaders, maxReceivedHeaderSize); err != nil {
		return answer{verdict: dead, reason: err.Error()}
	}
	w.active.Add(1)
	defer w.active.Add(-1)
	changed := w.changed()
	a := w.post(ctx, h)
	if a.verdict != absent {
		w.m.o.Topics.Delivered(h.Topic, 1)
	}
	a.unhealthy = !w.healthy() || closed(changed)
	return a
}

// passOver acknowledges messages that are none of this queue's business.
func (w *Pusher) passOver(h *broker.Held) bool {
	if !passedOver(h, w.p.Topic, w.p.Queue) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
	defer cancel()
	w.m.settled(h.Ack(ctx))
	return true
}

// keep extends the message for as long as it is worked on.
func (w *Pusher) keep(h *broker.Held) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		every := time.NewTicker(max(h.AckWait()/3, 10*time.Millisecond))
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
			if err := h.Extend(ctx); errors.Is(err, broker.ErrLapsed) || errors.Is(err, broker.ErrSettled) {
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// post makes one request.
func (w *Pusher) post(ctx context.Context, h *broker.Held) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.p.URL, bytes.NewReader(h.Body))
	if err != nil {
		return answer{verdict: absent, reason: err.Error()}
	}
	setHeader(req.Header, h)
	resp, err := w.client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			w.log.Debug("the application cannot be reached", "id", h.ID, "error", err)
			return answer{verdict: absent, reason: err.Error()}
		}
		return answer{reason: err.Error()}
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	a := judge(resp)
	if err != nil && a.verdict == done && resp.Header.Get(ackField) == "" {
		return answer{reason: fmt.Sprintf("the answer broke off: %v", err)}
	}
	return a
}

// judge reads an answer.
func judge(resp *http.Response) answer {
	a := answer{reason: "the application answered " + resp.Status, after: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	switch status := resp.StatusCode; {
	case status/100 == 2:
		a.verdict = done
	case status == 400, status == 404, status == 410, status == 422:
		a.verdict = dead
	}
	switch said := strings.ToLower(strings.TrimSpace(resp.Header.Get(ackField))); said {
	case "ack":
		a.verdict = done
	case "nack":
		a.verdict = again
	case "term":
		a.verdict = dead
	default:
		return a
	}
	a.reason += ", " + ackField + ": " + strings.ToLower(strings.TrimSpace(resp.Header.Get(ackField)))
	return a
}

// retryAfter reads the field (RFC 9110 section 10.2.3): seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// settle does what the answer says and reports false when the message is to be
// given back without counting.
func (w *Pusher) settle(h *broker.Held, a answer) bool {
	a, counts := w.weigh(h, a)
	if !counts {
		return false
	}
	var err error
	if a.verdict == again {
		delay := a.delay(h)
		w.log.Debug("a message is delivered again", "id", h.ID, "attempt", h.Attempt, "after", delay, "reason", a.reason)
		ctx, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
		defer cancel()
		err = h.Nack(ctx, delay)
	} else {
		err = w.conclude(h, a)
	}
	if err != nil {
		w.log.Warn("a message could not be settled; it comes again", "id", h.ID, "error", err)
	}
	return true
}

// weigh says whether the attempt counts, and makes the last one that failed a
// dead letter.
func (w *Pusher) weigh(h *broker.Held, a answer) (answer, bool) {
	if a.verdict == absent || a.verdict == again && (w.killed.Err() != nil || a.unhealthy) {
		return a, false
	}
	if a.verdict != again || w.p.MaxDeliver == 0 || h.Attempt < w.p.MaxDeliver {
		return a, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
	defer cancel()
	if w.o.Probe != nil && w.o.Probe(ctx) != nil {
		w.log.Info("a message failed once more, and so does the health check: the attempt does not count", "id", h.ID, "attempt", h.Attempt)
		w.pause(backoff(1)) // what is down shall not be asked in a circle
		return a, false
	}
	a.verdict = dead
	a.reason = fmt.Sprintf("%d attempts; the last: %s", h.Attempt, a.reason)
	return a, true
}

// delay is how long the message waits that is delivered again.
func (a answer) delay(h *broker.Held) time.Duration {
	if a.after > 0 {
		return a.after
	}
	return backoff(h.Attempt)
}

// conclude acknowledges a message, or makes it a dead letter.
func (w *Pusher) conclude(h *broker.Held, a answer) error {
	ctx, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
	defer cancel()
	if a.verdict == dead {
		return w.m.bury(ctx, w.broker, h, w.p.Queue, w.p.DeadLetter, a.reason)
	}
	return h.Ack(ctx) //nolint:wrapcheck // the callers say what they did
}

// giveBack returns a message without counting the attempt.
func (w *Pusher) giveBack(h *broker.Held) {
	ctx, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
	defer cancel()
	w.m.settled(h.Return(ctx))
}

// pause waits, and reports false when deliveries have ended meanwhile.
func (w *Pusher) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.changed():
	case <-w.quit.Done():
	}
	return w.quit.Err() == nil && w.healthy()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// backoff is the time before the attempt that follows the given one.
func backoff(attempt int) time.Duration {
	d := backoffMost
	if attempt < 10 {
		d = min(d, backoffFirst<<(attempt-1))
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// setHeader makes a request's header of a message's, names in their spelling.
func setHeader(header http.Header, h *broker.Held) {
	odd := map[string]string{}
	for name, value := range h.Header {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case canonical == onlyQueueField, staysHere(canonical), saidByUs(name):
		case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
			odd[name] = value
		default:
			header[name] = []string{value}
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = nil // it is the message's, if anybody's
	}
	if len(odd) > 0 {
		if text, err := json.Marshal(odd); err == nil && httpguts.ValidHeaderFieldValue(string(text)) {
			header.Set(headerField, string(text))
		}
	}
	topic := h.Topic
	if !httpguts.ValidHeaderFieldValue(topic) {
		topic = strconv.QuoteToASCII(topic)
	}
	header.Set(topicField, topic)
	header.Set(attemptField, strconv.Itoa(h.Attempt))
	if len(header[idField]) == 0 || header[idField][0] == "" {
		header.Set(idField, h.ID)
	}
}
