package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/http1"
)

const (
	// streamWindow is how much of an answer's body is kept, in bytes, until it
	// is read. The windows of connections are not used to hold anybody back: one
	// slow client must not stop the others.
	streamWindow = 256 << 10
	connWindow   = 1 << 30
	// defaultWindow is what the protocol starts with (RFC 9113 section 6.9.2).
	defaultWindow = 64<<10 - 1
	// maxWindow is what no window may exceed.
	maxWindow = 1<<31 - 1
	// maxFrame is the largest frame that is sent or taken, the protocol's
	// default.
	maxFrame = 16 << 10
	// manyStreams stands for a node that sets no limit.
	manyStreams = 1 << 30
	// lastStream is the largest stream identifier that is used.
	lastStream = 1<<31 - 1
)

// h2conn is a connection that speaks HTTP/2.
//
// Locks: writing, then mu, then a stream's own; none is held while waiting for
// anything but writing, which waits for the network and ends with the
// connection.
type h2conn struct {
	raw   net.Conn
	addr  string
	tls   bool
	every time.Duration // how often it is looked at
	used  atomic.Bool   // a request was sent on it

	// For the reading goroutine alone.
	in       *http2.Framer
	received uint32 // bytes of bodies that the node was not given room for again

	writing sync.Mutex
	writers atomic.Int32  // those that hold or wait for writing
	since   atomic.Uint64 // the look at which the holder began to write, 0: nobody
	buffer  *bufio.Writer
	out     *http2.Framer // over buffer
	fields  *hpack.Encoder
	block   bytes.Buffer // a header block in the making
	nextID  uint32

	mu         sync.Mutex
	streams    map[uint32]*h2stream
	reserved   int // streams open, or about to be
	limit      int // how many the node allows
	window     int64
	newStream  int64  // the window that a new stream begins with
	last       bool   // no more streams: GOAWAY came, or the client was closed
	err        error  // why it is closed
	goAway     string // what the node said as it went away
	idleSince  time.Time
	pinged     time.Time // when a sign of life was last asked for; zero: not since the node sent something
	awaited    bool      // and it has not come
	checks     *time.Timer
	looks      uint64
	frames     atomic.Uint64 // that came
	framesThen uint64        // at the last look
}

// newH2conn begins to speak HTTP/2 and waits for the node to do the same.
func newH2conn(client *Client, peer discovery.Peer, raw net.Conn) (*h2conn, error) {
	c := &h2conn{
		raw: raw, addr: peer.Addr, tls: peer.TLS, every: client.every, nextID: 1,
		streams: map[uint32]*h2stream{}, limit: manyStreams,
		window: defaultWindow, newStream: defaultWindow,
		buffer: bufio.NewWriterSize(raw, maxFrame+4<<10), idleSince: time.Now(),
	}
	c.in = http2.NewFramer(nil, bufio.NewReaderSize(raw, maxFrame+4<<10))
	c.in.SetMaxReadFrameSize(maxFrame)
	c.in.MaxHeaderListSize = http1.MaxHead
	c.in.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	c.in.SetReuseFrames()
	c.out = http2.NewFramer(c.buffer, nil)
	c.fields = hpack.NewEncoder(&c.block)
	if err := c.begin(client.dialer.Timeout); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	c.mu.Lock()
	c.checks = time.AfterFunc(c.every, c.look)
	c.mu.Unlock()
	go c.read()
	return c, nil
}

// begin exchanges settings.
func (c *h2conn) begin(timeout time.Duration) error {
	if err := c.raw.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := c.buffer.WriteString(http2.ClientPreface)
	err = errors.Join(err,
		c.out.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: http1.MaxHead}),
		c.out.WriteWindowUpdate(0, connWindow-defaultWindow),
		c.buffer.Flush())
	if err != nil {
		return err
	}
	f, err := c.in.ReadFrame()
	if err != nil {
		return fmt.Errorf("the node does not speak HTTP/2: %w", err)
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return errors.New("the node does not speak HTTP/2: it sent no settings first")
	}
	if err := c.settings(settings); err != nil {
		return err
	}
	if err := errors.Join(c.out.WriteSettingsAck(), c.buffer.Flush()); err != nil {
		return err
	}
	return c.raw.SetDeadline(time.Time{})
}

// reserve takes one of the streams that the node allows; unreserve gives it
// back.
func (c *h2conn) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last || c.err != nil || c.awaited || c.reserved >= c.limit {
		return false
	}
	c.reserved++
	return true
}

func (c *h2conn) unreserve() {
	c.mu.Lock()
	c.reserved--
	idle := c.reserved == 0
	c.idleSince = time.Now()
	last := c.last
	c.mu.Unlock()
	if idle && last {
		c.close(errClosed)
	}
}

// full reports that a new connection takes nothing.
func (c *h2conn) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limit == 0
}

// parting is why the connection takes no more requests, nil when it does. mu is
// held.
func (c *h2conn) parting() error {
	switch {
	case c.err != nil:
		return c.err
	case c.goAway != "":
		return errors.New("the node said " + c.goAway)
	case c.last:
		return errLast
	}
	return nil
}

// gone is parting for those who do not hold mu.
func (c *h2conn) gone() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parting()
}

// dead reports whether the connection is closed.
func (c *h2conn) dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// expire closes the connection when it is idle since before a time, with all
// also later when it is not, and reports whether it is closed.
func (c *h2conn) expire(before time.Time, all bool) bool {
	c.mu.Lock()
	c.last = c.last || all
	idle := c.reserved == 0 && (c.last || c.idleSince.Before(before))
	c.last = c.last || idle
	closed := c.err != nil
	c.mu.Unlock()
	if idle {
		c.close(errClosed)
	}
	return idle || closed
}

// close ends the connection and all streams on it.
func (c *h2conn) close(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.goAway != "" {
		err = fmt.Errorf("%w after %s", err, c.goAway)
	}
	c.err = err
	c.checks.Stop()
	streams := c.streams
	c.streams = nil
	c.mu.Unlock()
	_ = c.raw.Close() // there is nothing to be done about it
	for _, s := range streams {
		s.broke(err)
	}
}

// forget takes a stream off the connection.
func (c *h2conn) forget(s *h2stream) {
	c.mu.Lock()
	delete(c.streams, s.id)
	c.mu.Unlock()
	c.unreserve()
}

// find returns a stream that is still of interest, or nil.
func (c *h2conn) find(id uint32) *h2stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

// read takes what comes until the connection ends.
func (c *h2conn) read() {
	for {
		f, err := c.in.ReadFrame()
		c.frames.Add(1)
		if err == nil {
			err = c.take(f)
		}
		if err != nil && !c.survives(err) {
			return
		}
	}
}

// survives deals with a frame that is wrong, or with the end of all frames, and
// reports whether the connection goes on.
func (c *h2conn) survives(err error) bool {
	var stream http2.StreamError
	var conn http2.ConnectionError
	switch {
	case errors.As(err, &stream):
		if s := c.find(stream.StreamID); s != nil {
			s.fail(stream.Code, fmt.Errorf("answered nonsense: %w", err))
		}
		return true
	case errors.As(err, &conn):
		c.goodbye(http2.ErrCode(conn))
		err = fmt.Errorf("the node broke the protocol: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the node closed it")
	}
	c.close(fmt.Errorf("%w: %w", errConnection, err))
	return false
}

// goodbye tells the node what it did wrong.
func (c *h2conn) goodbye(code http2.ErrCode) {
	_ = c.raw.SetWriteDeadline(time.Now().Add(lastMoment)) // whether it hears it or not
	_ = c.write(func() error { return c.out.WriteGoAway(0, code, nil) })
}

// take handles one frame.
func (c *h2conn) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		c.heard()
		return c.data(f)
	case *http2.MetaHeadersFrame:
		c.heard()
		if s := c.find(f.StreamID); s != nil {
			return s.headers(f)
		}
	case *http2.WindowUpdateFrame:
		return c.open(f.StreamID, int64(f.Increment))
	case *http2.RSTStreamFrame:
		if s := c.find(f.StreamID); s != nil {
			s.reset(f.ErrCode)
		}
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if err := c.settings(f); err != nil {
			return err
		}
		return c.write(c.out.WriteSettingsAck)
	case *http2.PingFrame:
		if f.IsAck() {
			c.alive()
			return nil
		}
		return c.write(func() error { return c.out.WritePing(true, f.Data) })
	case *http2.GoAwayFrame:
		c.leave(f)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol) // they were turned off
	}
	return nil
}

// leave ends the streams that a GOAWAY says are not processed (RFC 9113
// section 6.8). The others go on.
func (c *h2conn) leave(f *http2.GoAwayFrame) {
	said := fmt.Sprintf("GOAWAY %v %s", f.ErrCode, excerpt(f.DebugData()))
	c.mu.Lock()
	c.last = true
	c.goAway = said
	idle := c.reserved == 0
	var lost []*h2stream
	for id, s := range c.streams {
		if id > f.LastStreamID {
			lost = append(lost, s)
		}
	}
	c.mu.Unlock()
	for _, s := range lost {
		s.broke(fmt.Errorf("%w: %s", errUnprocessed, said))
	}
	if idle {
		c.close(errClosed)
	}
}

// settings takes the node's settings (RFC 9113 section 6.5).
func (c *h2conn) settings(f *http2.SettingsFrame) error {
	c.writing.Lock() // for the encoder
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID { // of the others none concerns what is sent here
		case http2.SettingMaxConcurrentStreams:
			c.limit = int(min(s.Val, manyStreams))
		case http2.SettingHeaderTableSize:
			c.fields.SetMaxDynamicTableSize(min(s.Val, 4<<10))
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.newStream
			c.newStream = int64(s.Val)
			for _, one := range c.streams {
				if one.window += delta; one.window > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
				one.wake()
			}
		}
		return nil
	})
}
