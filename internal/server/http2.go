package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

const (
	// maxStreams is how many requests may be under way on a connection.
	maxStreams = 1000
	// streamWindow is how much of a request's body is taken ahead of whoever
	// reads it, connWindow how much of all bodies of a connection: one that
	// nobody reads must not hold up the others.
	streamWindow = 256 << 10
	connWindow   = 4<<20 - 1 // the most that net/http takes
	// maxFrame is the size of the largest frame that is taken (RFC 9113 section
	// 4.2). It is the smallest that can be told: a block of fields is looked at
	// a frame at a time.
	maxFrame = 16 << 10
)

// protocols are those of the connections that net/http serves. HTTP/2 comes to
// it without TLS, be there TLS below or not, see [http2Conn].
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// http2Config are the limits of HTTP/2.
func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReceiveBufferPerStream:     streamWindow,
		MaxReceiveBufferPerConnection: connWindow,
		MaxReadFrameSize:              maxFrame,
	}
}

// Frames (RFC 9113 section 4.1).
const (
	frameHead         = 9 // bytes in front of the payload
	frameHeaders      = 0x1
	frameContinuation = 0x9
	flagEndHeaders    = 0x4
	flagPadded        = 0x8
	flagPriority      = 0x20
)

// http2Conn is an HTTP/2 connection as net/http gets it. It reads ahead, where
// net/http would make two system calls a frame, and looks at the fields of
// requests as they pass: what is malformed is made so that net/http sees it,
// too, and resets the stream with PROTOCOL_ERROR (RFC 9113 section 8.1.1).
type http2Conn struct {
	net.Conn
	src  io.Reader // what was read before, then Conn
	tls  *tls.ConnectionState
	from *handover
	left sync.Once // the room

	loopback bool // as in httpmsg.Request

	buf    []byte // read ahead
	begun  bool   // the preface was read
	pass   int    // how many bytes come before the next head of a frame
	out    []byte // goes out before all that
	fields fieldCheck
	err    error // what reading ends with, after pass bytes
}

func newHTTP2Conn(conn net.Conn, read []byte, state *tls.ConnectionState, from *handover) *http2Conn {
	c := &http2Conn{
		Conn: conn, src: io.MultiReader(bytes.NewReader(read), conn), tls: state, from: from,
		buf: make([]byte, 0, 4<<10),
	}
	c.fields.init()
	return c
}

// preface is what a client begins with (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// errMalformed ends a connection whose fields could not be looked at. net/http,
// which has seen the same bytes, has answered by then.
var errMalformed = errors.New("malformed block of fields")

// Read reads frames.
func (c *http2Conn) Read(p []byte) (int, error) {
	for c.pass == 0 && len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if err := c.frame(); err != nil {
			return 0, err
		}
	}
	if len(c.out) > 0 {
		n := copy(p, c.out)
		c.out = c.out[n:]
		return n, nil
	}
	p = p[:min(len(p), c.pass)]
	if len(c.buf) == 0 && len(p) >= cap(c.buf) {
		n, err := c.src.Read(p)
		c.pass -= n
		return n, err
	}
	if len(c.buf) == 0 {
		if err := c.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf)
	c.skip(n)
	c.pass -= n
	return n, nil
}

// fill reads ahead until n bytes are there.
func (c *http2Conn) fill(n int) error {
	if n > cap(c.buf) {
		c.buf = append(make([]byte, 0, frameHead+maxFrame), c.buf...)
	}
	for len(c.buf) < n {
		m, err := c.src.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+m]
		if err != nil && len(c.buf) < n {
			return err
		}
	}
	return nil
}

// skip removes the first n bytes of what was read ahead.
func (c *http2Conn) skip(n int) { c.buf = c.buf[:copy(c.buf, c.buf[n:])] }

// begin looks at the preface. Without it net/http would read HTTP/1.
func (c *http2Conn) begin() error {
	if err := c.fill(len(preface)); err != nil {
		return err
	}
	if string(c.buf[:len(preface)]) != preface {
		return io.EOF
	}
	c.begun, c.pass = true, len(preface)
	return nil
}

// frame looks at the next frame.
func (c *http2Conn) frame() error {
	if !c.begun {
		return c.begin()
	}
	if err := c.fill(frameHead); err != nil {
		return err
	}
	size := int(c.buf[0])<<16 | int(c.buf[1])<<8 | int(c.buf[2])
	c.pass = frameHead + size
	if kind := c.buf[3]; kind != frameHeaders && kind != frameContinuation || size > maxFrame {
		return nil // what is too large is net/http's to refuse
	}
	if err := c.fill(frameHead + size); err != nil {
		return err
	}
	block, ok := fragment(c.buf[:frameHead+size])
	if !ok {
		return nil // also net/http's to refuse
	}
	flags := c.buf[4]
	malformed, err := c.fields.add(block, flags&flagEndHeaders != 0)
	switch {
	case err != nil:
		c.err = errMalformed
	case malformed:
		c.spoil(frameHead + size)
	}
	return nil
}

// fragment returns the part of a block of fields that is in a HEADERS or
// CONTINUATION frame (RFC 9113 sections 6.2, 6.10).
func fragment(frame []byte) ([]byte, bool) {
	kind, flags, b := frame[3], frame[4], frame[frameHead:]
	if kind == frameContinuation {
		return b, true
	}
	padding := 0
	if flags&flagPadded != 0 {
		if len(b) == 0 {
			return nil, false
		}
		padding, b = int(b[0]), b[1:]
	}
	if flags&flagPriority != 0 {
		if len(b) < 5 {
			return nil, false
		}
		b = b[5:]
	}
	if padding > len(b) {
		return nil, false
	}
	return b[:len(b)-padding], true
}

// spoil passes the first n bytes, the last frame of a block of fields, on with
// one more field, whose name cannot be.
func (c *http2Conn) spoil(n int) {
	const impossible = "\x00\x01A\x00" // "A: ", literal, not to be remembered (RFC 7541 section 6.2.2)
	frame := append([]byte(nil), c.buf[:n]...)
	frame[4] &^= flagEndHeaders
	more := [frameHead]byte{2: byte(len(impossible)), 3: frameContinuation, 4: flagEndHeaders}
	copy(more[5:], frame[5:9]) // the stream
	c.out = append(append(frame, more[:]...), impossible...)
	c.skip(n)
	c.pass = 0
}

// Close closes the connection.
func (c *http2Conn) Close() error {
	c.from.forgetHTTP2(c)
	defer c.left.Do(c.from.room.leave)
	return c.Conn.Close()
}
