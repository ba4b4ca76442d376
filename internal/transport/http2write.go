package transport

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
)

// write calls f with the right to write frames and sees to it that they leave:
// whoever waits to write next takes them along. An error closes the connection.
func (c *h2conn) write(f func() error) error {
	c.writers.Add(1)
	c.writing.Lock()
	c.mu.Lock()
	closed := c.err
	c.since.Store(c.looks + 1)
	c.mu.Unlock()
	err := closed
	if err == nil {
		err = f()
	}
	if c.writers.Add(-1) == 0 && err == nil {
		err = c.buffer.Flush()
	}
	c.since.Store(0)
	c.writing.Unlock()
	if err != nil && closed == nil {
		c.close(fmt.Errorf("%w: %w", errConnection, err))
	}
	if err != nil {
		return c.failure()
	}
	return nil
}

// failure is why the connection is closed.
func (c *h2conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// open makes the windows to the node larger (RFC 9113 section 6.9).
func (c *h2conn) open(id uint32, more int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		if c.window += more; c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		for _, s := range c.streams {
			s.wake()
		}
		return nil
	}
	s := c.streams[id]
	if s == nil {
		return nil
	}
	if s.window += more; s.window > maxWindow {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl}
	}
	s.wake()
	return nil
}

// room takes up to n bytes of the windows of s and its connection.
func (c *h2conn) room(s *h2stream, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = int(min(int64(n), s.window, c.window))
	if n <= 0 {
		return 0
	}
	s.window -= int64(n)
	c.window -= int64(n)
	return n
}

// begin opens a stream: it writes the request's head, and with it the body when
// that is body and there is room for it.
func (s *h2stream) begin(body []byte) error {
	c, r := s.conn, s.request
	var refused error // of this stream, not of the connection
	err := c.write(func() error {
		if refused = c.register(s); refused != nil {
			return nil
		}
		c.block.Reset()
		s.encode()
		s.wrote = true
		end := r.Length == 0
		s.sentEnd.Store(end)
		if err := c.writeBlock(s.id, end); err != nil || len(body) == 0 {
			return err
		}
		if s.inline = c.room(s, len(body)); s.inline == 0 {
			return nil
		}
		end = s.inline == len(body)
		s.sentEnd.Store(end)
		return c.out.WriteData(s.id, end, body[:s.inline])
	})
	if err != nil {
		return err
	}
	return refused
}

// register gives a stream its identifier. They rise in the order in which
// streams begin on the wire. An error says that the connection takes no more.
func (c *h2conn) register(s *h2stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why := c.parting(); why != nil { // since the stream was reserved: the node would pass it over
		return fmt.Errorf("%w: %w", errUnprocessed, why)
	}
	s.id = c.nextID
	c.nextID += 2
	if c.nextID >= lastStream {
		c.last = true
	}
	s.window = c.newStream
	c.streams[s.id] = s
	return nil
}

// writeBlock writes the header block in c.block.
func (c *h2conn) writeBlock(id uint32, end bool) error {
	b := c.block.Next(maxFrame)
	err := c.out.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b, EndStream: end, EndHeaders: c.block.Len() == 0})
	for err == nil && c.block.Len() > 0 {
		b = c.block.Next(maxFrame)
		err = c.out.WriteContinuation(id, c.block.Len() == 0, b)
	}
	return err
}

// encode writes the request's head to c.block. Content-Length stays where it
// was and is told when the length is known.
func (s *h2stream) encode() {
	r := s.request
	scheme := "http"
	if s.conn.tls {
		scheme = "https"
	}
	s.field(":method", r.Method)
	s.field(":scheme", scheme)
	if r.Host != "" {
		s.field(":authority", r.Host)
	}
	s.field(":path", r.Target)
	told := false
	for _, f := range r.Header {
		name := lower(f.Name)
		switch {
		case name == "content-length":
			if r.Length >= 0 && !told {
				told = true
				s.field(name, strconv.FormatInt(r.Length, 10))
			}
		case !connectionSpecific(name):
			s.field(name, f.Value)
		}
	}
	if !told && r.Length > 0 {
		s.field("content-length", strconv.FormatInt(r.Length, 10))
	}
	if r.Trailers || GRPCMessage(r.Header) {
		s.field("te", "trailers")
	}
}

// field adds a field to the header block. Other people's secrets are kept out
// of the compression's table (RFC 7541 section 7.1.3): a client could guess
// them by the size of its own requests.
func (s *h2stream) field(name, value string) {
	secret := name == "authorization" || name == "cookie" || name == "proxy-authorization"
	_ = s.conn.fields.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: secret}) // it goes to memory
}

// lower is a field's name as HTTP/2 has it.
func lower(name string) string {
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return strings.ToLower(name)
		}
	}
	return name
}

// connectionSpecific fields have no place in HTTP/2 (RFC 9113 section 8.2.2);
// Host has become :authority.
func connectionSpecific(name string) bool {
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "te", "host":
		return true
	}
	return false
}

// GRPCMessage reports whether a header is that of a gRPC message.
func GRPCMessage(h httpmsg.Header) bool {
	media, ok := strings.CutPrefix(strings.ToLower(h.Get("Content-Type")), "application/grpc")
	return ok && (media == "" || strings.ContainsAny(media[:1], "+; "))
}

// write sends a piece of the body that there is room for.
func (s *h2stream) write(b []byte, end bool) error {
	c := s.conn
	return c.write(func() error {
		if s.over.Load() { // the sender hears of it next
			return c.open(0, int64(len(b))) // what it took of the window is the others'
		}
		if end {
			s.sentEnd.Store(true) // before the node can answer to it
		}
		return c.out.WriteData(s.id, end, b)
	})
}

// trailers ends the request with trailer fields, or without.
func (s *h2stream) trailers(h httpmsg.Header) {
	c := s.conn
	_ = c.write(func() error { // a failure ends the stream
		if s.over.Load() {
			return nil
		}
		c.block.Reset()
		for _, f := range h {
			if name := lower(f.Name); http1.IsToken(name) && http1.IsValue(f.Value) && !frames(name) && !connectionSpecific(name) {
				s.field(name, f.Value)
			}
		}
		s.sentEnd.Store(true)
		if c.block.Len() == 0 {
			return c.out.WriteData(s.id, true, nil)
		}
		return c.writeBlock(s.id, true)
	})
}

// cancel tells the node that the stream is no longer wanted, unless both have
// said all there is to say.
func (s *h2stream) cancel(code http2.ErrCode) {
	c := s.conn
	_ = c.write(func() error { // a failure closes the connection
		if s.id == 0 || s.over.Swap(true) || code == http2.ErrCodeNo && s.sentEnd.Load() {
			return nil
		}
		return c.out.WriteRSTStream(s.id, code)
	})
}
