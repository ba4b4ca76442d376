package messaging

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
)

// maxFailures bounds the lines that an answer names.
const maxFailures = 100

// batchAnswer says what became of a batch. When a line failed it is an error
// in the sidecar's form, too.
type batchAnswer struct {
	ID        string      `json:"id,omitempty"`
	Code      int         `json:"code,omitempty"`
	Detail    string      `json:"detail,omitempty"`
	Status    string      `json:"status,omitempty"`
	Published int         `json:"published"`
	Failed    []lineError `json:"failed"` // the first hundred
}

// lineError is a line that was not published.
type lineError struct {
	Line   int    `json:"line"` // from 1
	Code   int    `json:"code"`
	Detail string `json:"detail"`
}

// serveBatch publishes a message for each line of the body, in order. The
// request's header is every message's; with Micro-Id X the ID of line n is
// X-n, so that a batch may be sent again as a whole. Lines that have arrived
// together are published together. A line that is at fault is passed over;
// when the engine fails, no further lines are tried.
func (m *Messaging) serveBatch(w http.ResponseWriter, r *http.Request, q query) error {
	if q.batch != "ndjson" {
		return httpmsg.Errorf(http.StatusBadRequest, "batch=%s: expected ndjson", q.batch)
	}
	shared, err := m.prepare(r)
	if err != nil {
		return err
	}
	shared.Header["Content-Type"] = "application/json"
	b := batch{m: m, topic: q.topic, answer: batchAnswer{Failed: []lineError{}}}
	lines := newLineReader(r.Body, m.o.MaxBodySize)
	for n := 1; !b.stopped; n++ {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = checkLine(line)
		}
		switch failed := (*httpmsg.Error)(nil); {
		case err == nil && len(line) > 0:
			b.add(n, shared.line(n, line))
			if b.full() || !lines.more() {
				b.publish(r.Context())
			}
		case err == nil: // an empty line
		case errors.As(err, &failed):
			b.publish(r.Context()) // failures are reported in order
			b.answer.fail(n, failed)
		default: // the body broke off
			b.publish(r.Context())
			b.stop(n, httpmsg.Errorf(http.StatusBadRequest, "read the batch: %v", err))
		}
	}
	b.publish(r.Context())
	return b.answer.write(w)
}

// What is published together: the client waits for it, and it is in memory.
const (
	maxTogether      = 64
	maxTogetherBytes = 1 << 20
)

// batch is the lines that are to be published together.
type batch struct {
	m       *Messaging
	topic   string
	lines   []int
	out     []outgoing
	bytes   int
	stopped bool
	answer  batchAnswer
}

func (b *batch) add(n int, o outgoing) {
	b.lines, b.out = append(b.lines, n), append(b.out, o)
	b.bytes += len(o.Body)
}

func (b *batch) full() bool { return len(b.out) >= maxTogether || b.bytes >= maxTogetherBytes }

// publish publishes what has been added.
func (b *batch) publish(ctx context.Context) {
	for i, err := range b.m.publishAll(ctx, b.topic, b.out) {
		if err == nil {
			b.answer.Published++
			continue
		}
		failed := refusal(err)
		if failed.Status == http.StatusRequestEntityTooLarge {
			b.answer.fail(b.lines[i], failed)
			continue
		}
		b.stop(b.lines[i], failed)
	}
	clear(b.out) // let the bodies go
	b.lines, b.out, b.bytes = b.lines[:0], b.out[:0], 0
}

// stop ends the batch.
func (b *batch) stop(n int, e *httpmsg.Error) {
	b.answer.fail(n, e)
	if !b.stopped {
		b.answer.Detail += "; what follows was not tried"
	}
	b.stopped = true
}

// publishAll publishes messages, together if the broker can. The result ends
// where the engine has failed.
func (m *Messaging) publishAll(ctx context.Context, topic string, all []outgoing) []error {
	bulk, ok := m.o.Broker.(broker.Bulk)
	if !ok || len(all) < 2 || all[0].delay > 0 {
		var errs []error
		for _, out := range all {
			err := m.publish(ctx, topic, out)
			errs = append(errs, err)
			if err != nil && !errors.Is(err, broker.ErrTooLarge) {
				break
			}
		}
		return errs
	}
	ids, messages := make([]string, len(all)), make([]broker.Message, len(all))
	for i, out := range all {
		ids[i], messages[i] = out.id, out.Message
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	errs := bulk.PublishAll(ctx, topic, ids, messages)
	for _, err := range errs {
		if err == nil {
			m.published.Add(1)
			m.o.Topics.Published(topic)
		}
	}
	return errs
}

// line is the message of line n.
func (o outgoing) line(n int, body []byte) outgoing {
	o.Header = maps.Clone(o.Header)
	o.Body = body
	if o.id != "" {
		o.id += "-" + strconv.Itoa(n)
		o.Header[idField] = o.id
	}
	return o
}

func checkLine(line []byte) error {
	if len(line) > 0 && !json.Valid(line) {
		return httpmsg.Errorf(http.StatusBadRequest, "the line is not JSON: %.40q", line)
	}
	return nil
}

func (a *batchAnswer) fail(n int, e *httpmsg.Error) {
	if a.Code == 0 {
		a.ID, a.Code, a.Status = "go.micro.sidecar", e.Status, http.StatusText(e.Status)
		a.Detail = fmt.Sprintf("line %d: %s", n, e.Detail)
	}
	if len(a.Failed) < maxFailures {
		a.Failed = append(a.Failed, lineError{n, e.Status, e.Detail})
	}
}

func (a *batchAnswer) write(w http.ResponseWriter) error {
	status := http.StatusOK
	if a.Code != 0 {
		status = a.Code
	}
	return writeJSON(w, status, a)
}

// writeJSON answers with v. What cannot be sent any more is nobody's to hear.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// lineReader reads lines that are at most limit bytes long.
type lineReader struct {
	r     *bufio.Reader
	limit int64
}

func newLineReader(r io.Reader, limit int64) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 32<<10), limit: limit}
}

// more tells that a whole line has arrived.
func (l *lineReader) more() bool {
	arrived, _ := l.r.Peek(l.r.Buffered()) // it cannot fail
	return bytes.IndexByte(arrived, '\n') >= 0
}

// next returns a line without its end, or io.EOF. A line that is too long is
// skipped and a 413.
func (l *lineReader) next() ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		piece, err := l.r.ReadSlice('\n')
		if !tooLong {
			line = append(line, piece...)
			if tooLong = int64(len(line)) > l.limit+int64(len("\r\n")); tooLong {
				line = nil
			}
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && (len(line) > 0 || tooLong) {
			err = nil // the last line needs no end
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if err == nil && (tooLong || int64(len(line)) > l.limit) {
			return nil, httpmsg.Errorf(http.StatusRequestEntityTooLarge, "the line is larger than %d bytes", l.limit)
		}
		return line, err
	}
}
