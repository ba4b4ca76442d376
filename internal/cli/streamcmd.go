package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/micro/sidecar/internal/rpc"
	"github.com/micro/sidecar/internal/transport"
)

func streamCommand() command {
	return command{
		use: "stream SERVICE METHOD [JSON|-]", short: "make a streaming RPC and print its messages as they come",
		long: "SERVICE is the full name. JSON is the request, {} if left out. With - the\n" +
			"requests are the JSON values on the standard input, each sent as it comes. An\nanswer is a line a message.",
		examples: []string{`micro stream go.micro.srv.greeter Say.Count '{"to":3}'`, "micro stream chat Room.Talk - < lines.json"},
		complete: []completer{serviceNames, methodNames},
		own:      []*setting{nodeAddressSetting()}, groups: clientGroups, run: stream,
	}
}

func stream(ctx context.Context, i *invocation) error {
	reading, stop := context.WithCancel(ctx)
	defer stop() // who may still wait for a request gives up
	requests, err := i.requests(reading)
	if err != nil {
		return err
	}
	return i.with(ctx, false, func(c client) error {
		what := call{service: i.args[0], method: i.args[1], address: i.cfg.nodeAddress.String()}
		return ended(ctx, c.Stream(ctx, what, requests, func(message []byte) error {
			_, err := fmt.Fprintf(i.out, "%s\n", message)
			return err
		}))
	})
}

// requests gives the messages to send, each on one line.
func (i *invocation) requests(ctx context.Context) (func() ([]byte, error), error) {
	if len(i.args) > 2 && i.args[2] == "-" {
		return values(ctx, i.in), nil
	}
	text := "{}"
	if len(i.args) > 2 {
		text = i.args[2]
	}
	var line bytes.Buffer
	if json.Compact(&line, []byte(text)) != nil {
		return nil, errors.New("the request is no JSON")
	}
	given := false
	return func() ([]byte, error) {
		if given {
			return nil, io.EOF
		}
		given = true
		return line.Bytes(), nil
	}, nil
}

// values reads JSON values one after another. A read that is under way when ctx
// ends is left behind: it cannot be interrupted.
func values(ctx context.Context, r io.Reader) func() ([]byte, error) {
	in := json.NewDecoder(r)
	type result struct {
		line []byte
		err  error
	}
	return func() ([]byte, error) {
		read := make(chan result, 1)
		go func() {
			var value json.RawMessage
			err := in.Decode(&value)
			var line bytes.Buffer
			if err == nil {
				err = json.Compact(&line, value)
			}
			read <- result{line.Bytes(), err}
		}()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case r := <-read:
			if r.err != nil && !errors.Is(r.err, io.EOF) {
				return nil, fmt.Errorf("standard input: %w", r.err)
			}
			return r.line, r.err
		}
	}
}

// Stream makes the call to a node of the service.
func (d *direct) Stream(ctx context.Context, c call, requests func() ([]byte, error), emit func([]byte) error) error {
	return d.calls.stream(ctx, c, requests, emit)
}

// stream makes a streaming RPC.
func (c *caller) stream(ctx context.Context, what call, requests func() ([]byte, error), emit func([]byte) error) error {
	s, done, err := c.rpc.Stream(ctx, rpc.Request{
		Service: what.service, Method: what.method, Address: what.address, ContentType: transport.JSON,
	}, &transport.Requests{Next: requests})
	if err != nil {
		return err
	}
	defer done()
	for {
		message, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := emit(message); err != nil {
			return err
		}
	}
}

// Stream makes the call through the sidecar, a line a message both ways.
func (p *proxied) Stream(ctx context.Context, c call, requests func() ([]byte, error), emit func([]byte) error) error {
	query := url.Values{"service": {c.service}, "method": {c.method}}
	if c.address != "" {
		query.Set("address", c.address)
	}
	body := &requestLines{next: requests}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base.endpoint("rpc", query), body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", rpc.NDJSON)
	req.Header.Set("Accept", rpc.NDJSON)
	resp, err := p.http.Do(req)
	switch {
	case body.failed() != nil:
		return body.failed()
	case err != nil:
		return p.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if kind := resp.Header.Get("Content-Type"); kind != rpc.NDJSON {
		return fmt.Errorf("the sidecar at %s answers a stream with content type %q: it is another version, or none", p.base, kind)
	}
	err = readMessages(resp.Body, emit)
	if failed := body.failed(); failed != nil && err != nil {
		return failed
	}
	var own *messageError
	if err == nil || errors.As(err, &own) {
		return err
	}
	return p.lost(err)
}

// messageError is what a stream ended with, in the service's or the sidecar's words.
type messageError struct{ detail string }

// Error returns the detail.
func (e *messageError) Error() string { return e.detail }

// readMessages calls emit with each line. A line {"error":…} is the stream's
// error when the answer breaks off behind it, and a message otherwise.
func readMessages(r io.Reader, emit func([]byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAnswer)
	lines.Split(wholeLine)
	var held []byte // it may be the last line of a stream that went wrong
	for lines.Scan() {
		if held != nil {
			if err := emit(held); err != nil {
				return &emitError{err}
			}
			held = nil
		}
		line := lines.Bytes()
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			held = bytes.Clone(line)
			continue
		}
		if err := emit(line); err != nil {
			return &emitError{err}
		}
	}
	err := lines.Err()
	var said struct {
		Error struct{ Detail, Status string }
	}
	switch {
	case held == nil:
		return err
	case err == nil:
		if err := emit(held); err != nil {
			return &emitError{err}
		}
		return nil
	case json.Unmarshal(held, &said) != nil || said.Error.Detail+said.Error.Status == "":
		return err
	case said.Error.Detail == "":
		return &messageError{said.Error.Status}
	}
	return &messageError{said.Error.Detail}
}

// wholeLine splits at the ends of lines. A line without one was cut off.
func wholeLine(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}
