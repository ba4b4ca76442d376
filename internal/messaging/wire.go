package messaging

import (
	"bufio"
	"encoding/binary"
	"net"
	"net/http"
	"sync"
	"time"
)

// batchSize is how many bytes of frames go into one write; a larger frame goes
// by itself.
const batchSize = 64 << 10

// batches are buffers of batchSize: they are needed only while something is
// being written.
var batches = sync.Pool{New: func() any {
	buf := make([]byte, 0, batchSize)
	return &buf
}}

// wire is the connection below a subscriber's WebSocket. The WebSocket library
// writes its control frames through it, each in one Write because a control
// frame is smaller than the library's buffer. The frames with messages are
// written past the library, whole ones and many at a time.
type wire struct {
	net.Conn

	mu     sync.Mutex // held while something is written
	closed bool       // a close frame was written: nothing may follow (RFC 6455 section 5.5.1)

	timeMu  sync.Mutex
	until   time.Time     // when the write under way must be done; zero without
	hurried time.Duration // how long a write may take now; 0 is as long as it was given
}

// Write implements [net.Conn] for control frames.
func (w *wire) Write(p []byte) (int, error) {
	const opcode, closeFrame = 0xf, 0x8
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(p) > 0 && p[0]&opcode == closeFrame {
		w.closed = true
	}
	return w.Conn.Write(p) //nolint:wrapcheck // the library says what it was doing
}

// write writes whole frames. It fails with [os.ErrDeadlineExceeded] when that
// takes longer than the timeout.
func (w *wire) write(frames []byte, timeout time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	w.begin(timeout)
	defer w.end()
	_, err := w.Conn.Write(frames)
	return err //nolint:wrapcheck // it is complete
}

func (w *wire) begin(timeout time.Duration) {
	w.timeMu.Lock()
	defer w.timeMu.Unlock()
	if w.hurried > 0 {
		timeout = min(timeout, w.hurried)
	}
	w.until = time.Now().Add(timeout)
	_ = w.SetWriteDeadline(w.until) // it fails when the connection is closed, and so does the write
}

func (w *wire) end() {
	w.timeMu.Lock()
	defer w.timeMu.Unlock()
	w.until = time.Time{}
	_ = w.SetWriteDeadline(w.until)
}

// hurry gives the write under way, and each that follows, no longer than that.
func (w *wire) hurry(timeout time.Duration) {
	w.timeMu.Lock()
	defer w.timeMu.Unlock()
	w.hurried = timeout
	if until := time.Now().Add(timeout); !w.until.IsZero() && until.Before(w.until) {
		w.until = until
		_ = w.SetWriteDeadline(until)
	}
}

// isHurried tells that the time of a write has been cut short.
func (w *wire) isHurried() bool {
	w.timeMu.Lock()
	defer w.timeMu.Unlock()
	return w.hurried > 0
}

// maxFrameHead is the longest head of a server's frame, in bytes.
const maxFrameHead = 10

// appendTextFrame appends a whole text frame of a server, which is not masked
// (RFC 6455 section 5.2).
func appendTextFrame(dst, text []byte) []byte {
	const finText = 0x81
	switch n := len(text); {
	case n < 126:
		dst = append(dst, finText, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, finText, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, finText, 127), uint64(n))
	}
	return append(dst, text...)
}

// wireTap puts a wire under the connection that a handshake takes over.
type wireTap struct {
	http.ResponseWriter
	wire *wire
}

// Hijack implements [http.Hijacker].
func (t *wireTap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the library says what it was doing
	}
	if err := rw.Flush(); err != nil {
		_ = conn.Close()
		return nil, nil, err //nolint:wrapcheck // the library says what it was doing
	}
	t.wire = &wire{Conn: conn}
	rw.Writer.Reset(t.wire)
	return t.wire, rw, nil
}
