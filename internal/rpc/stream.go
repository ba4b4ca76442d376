package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/record"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/transport"
)

// NDJSON is the content type of a stream of messages: JSON, one a line.
const NDJSON = "application/x-ndjson"

// Stream makes a call of which neither the request nor the answer is one
// message, and returns when the answer begins. Errors are those of
// [Caller.Call]. The caller's timeout bounds the look-up, and calls to nodes
// that do not stream; a positive r.Timeout bounds all of the call. r.Body is
// not used. done ends the call and must be called.
func (c *Caller) Stream(ctx context.Context, r Request, requests *transport.Requests) (_ transport.Stream, done func(), _ error) {
	cancel := func() {}
	if r.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
	}
	looking, found := context.WithTimeout(ctx, c.Timeout)
	service, err := c.service(looking, r)
	found()
	if err != nil {
		cancel()
		return nil, nil, err
	}
	call := transport.Call{Service: r.Service, Method: r.Method, ContentType: r.ContentType, Header: r.Header}
	requests.Timeout = c.timeout(r.Timeout)
	var s transport.Stream
	var node *discovery.Node
	err = c.Balancer.Do(ctx, service, balance.Request{Key: r.Key, Shortened: true}, func(t balance.Try) balance.Result {
		var err error
		node = t.Node
		r.Account.To(r.Service, t.Node.Addr)
		s, err = c.Transport.Stream(ctx, t.Node, call, requests)
		record.Try(t.Node, stats.RPC, http.StatusOK, err, 0)
		outcome := balance.Judge(ctx, err)
		outcome.Timed = false // when a stream begins is its method's affair, not the node's
		return outcome
	})
	c.record(service, err, 0)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	node.Load.Open.Add(1)
	return s, func() {
		s.Close()
		node.Load.Open.Add(-1)
		cancel()
	}, nil
}

// wantsStream reports whether a request asks for a stream of messages, or
// brings one.
func wantsStream(r *httpmsg.Request) bool {
	for i := range r.Header {
		f := &r.Header[i]
		switch {
		case len(f.Name) == len("Accept") && strings.EqualFold(f.Name, "Accept"):
			for kind := range strings.SplitSeq(f.Value, ",") {
				if isNDJSON(kind) {
					return true
				}
			}
		case len(f.Name) == len("Content-Type") && strings.EqualFold(f.Name, "Content-Type") && isNDJSON(f.Value):
			return true
		}
	}
	return false
}

// isNDJSON reports whether a media type is [NDJSON], whatever its parameters.

func isNDJSON(contentType string) bool {
	base, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(base), NDJSON)
}

// serveStream makes a call and answers with a line a message. What goes wrong
// before the answer begins is an error like any other; after it, it is a last
// line {"error":…}, and the answer is broken off, so that nobody takes it for a
// whole one.
func (h *Handler) serveStream(ctx context.Context, call Request, requests *transport.Requests, w httpmsg.ResponseWriter) error {
	ctx, end, err := h.Streams.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	call.ContentType = transport.JSON
	s, done, err := h.Caller.Stream(ctx, call, requests)
	if err != nil {
		return because(ctx, err)
	}
	defer done()
	if w.Head(http.StatusOK, httpmsg.Header{{Name: "Content-Type", Value: NDJSON}, httpmsg.Date()}, -1) != nil || w.Flush() != nil {
		return httpmsg.ErrAborted
	}
	for {
		message, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			_ = writeLine(w, h.farewell(because(ctx, err))) // the answer is broken anyhow
			return httpmsg.ErrAborted
		}
		if writeLine(w, message) != nil {
			return httpmsg.ErrAborted
		}
	}
}

// Stop takes no new streams and ends those under way: a quarter of the time that
// ctx has they may end by themselves, as other requests, then each gets a
// farewell. It waits for them until ctx ends.
func (h *Handler) Stop(ctx context.Context) error {
	var patience time.Duration
	if end, ok := ctx.Deadline(); ok {
		patience = time.Until(end) / 4
	}
	if err := h.Streams.Stop(ctx, patience); err != nil {
		return fmt.Errorf("end the calls that stream: %w", err)
	}
	return nil
}

// because is err, or that the sidecar stops when this is what ended ctx.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, streams.ErrStopping) {
		return cause
	}
	return err
}

// farewell is the last message of a stream that went wrong.
func (h *Handler) farewell(err error) []byte {
	text, jerr := json.Marshal(struct {
		Error transport.ServiceError `json:"error"`
	}{h.Explain(err)})
	if jerr != nil { // strings and a number: cannot fail
		return []byte(`{"error":{}}`)
	}
	return text
}

func writeLine(w httpmsg.ResponseWriter, message []byte) error {
	if _, err := w.Write(append(message, '\n')); err != nil {
		return err
	}
	return w.Flush()
}

// once gives the one message of a request.
func once(message []byte) *transport.Requests {
	given := false
	return &transport.Requests{Next: func() ([]byte, error) {
		if given {
			return nil, io.EOF
		}
		given = true
		return message, nil
	}}
}

// lines gives the messages of a request, a line each, as they come. Empty lines
// are passed over.
func (h *Handler) lines(r *httpmsg.Request) *transport.Requests {
	in := bufio.NewReader(r.Body)
	return &transport.Requests{Next: func() ([]byte, error) {
		for {
			line, err := readLine(in, h.MaxBody)
			switch {
			case errors.Is(err, transport.ErrTooLarge):
				return nil, httpmsg.Errorf(http.StatusRequestEntityTooLarge, "a line of the request is larger than %d bytes (--max_body_size)", h.MaxBody)
			case err != nil && !errors.Is(err, io.EOF):
				return nil, httpmsg.BodyError(err)
			}
			if line = bytes.TrimSpace(line); len(line) > 0 {
				return line, nil
			}
			if err != nil {
				return nil, io.EOF
			}
		}
	}}
}

// readLine reads a line of at most limit bytes, its end not counted. The last
// one needs no end: io.EOF comes with it.
func readLine(in *bufio.Reader, limit int64) ([]byte, error) {
	var line []byte
	for {
		piece, err := in.ReadSlice('\n')
		line = append(line, piece...)
		if int64(len(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")))) > limit {
			return nil, transport.ErrTooLarge
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
