package messaging

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"

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
// X-n, so that a batch may be sent again as a whole. A line that is at fault
// is passed over; when the engine fails the rest is not tried.
func (m *Messaging) serveBatch(w http.ResponseWriter, r *http.Request, q query) error {
	if q.batch != "ndjson" {
		return httpmsg.Errorf(http.StatusBadRequest, "batch=%s: expected ndjson", q.batch)
	}
	shared, err := m.prepare(r)
	if err != nil {
		return err
	}
	shared.Header["Content-Type"] = "application/json"
	answer := batchAnswer{Failed: []lineError{}}
	lines := newLineReader(r.Body, m.o.MaxBodySize)
	for n := 1; ; n++ {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		stop := false
		if err == nil {
			err = checkLine(line)
		}
		if err == nil && len(line) > 0 {
			if err = m.publish(r.Context(), q.topic, shared.line(n, line)); err != nil {
				err, stop = refusal(err), true
			}
		}
		if err == nil {
			if len(line) > 0 {
				answer.Published++
			}
			continue
		}
		var failed *httpmsg.Error
		if !errors.As(err, &failed) { // the body broke off
			failed, stop = httpmsg.Errorf(http.StatusBadRequest, "read the batch: %v", err), true
		}
		answer.fail(n, failed)
		if stop && failed.Status != http.StatusRequestEntityTooLarge {
			answer.Detail += "; what follows was not tried"
			break
		}
	}
	return answer.write(w)
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
	return &lineReader{r: bufio.NewReader(r), limit: limit}
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
