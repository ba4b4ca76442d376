package messaging

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// The library's control frames and the frames with messages never mix.
func TestPingsWhileMessagesArrive(t *testing.T) {
	f := serve(t, func(o *Options) { o.Buffer = 1 << 20 })
	c := f.dial("t", "")
	const n = 3000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pings := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				pings <- nil
				return
			default:
			}
			if err := c.Ping(ctx); err != nil {
				pings <- err
				return
			}
		}
	}()
	go func() {
		for i := range n {
			_ = f.broker.Publish(ctx, "t", broker.Message{Body: fmt.Append(nil, i)})
		}
	}()
	for i := range n {
		if got := string(c.next().Body); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
	close(done)
	// The last ping is answered only while somebody reads.
	reading, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _, _, _ = c.Read(reading) }()
	select {
	case err := <-pings:
		if err != nil {
			t.Errorf("ping: %v", err)
		}
	case <-time.After(wait):
		t.Error("the last ping is not answered")
	}
}

func TestTextFrame(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 1<<16 - 1, 1 << 16, 1 << 20} {
		text := bytes.Repeat([]byte("x"), n)
		got := appendTextFrame([]byte("before"), text)[len("before"):]
		size, head := int(got[1]), 2
		switch size {
		case 126:
			size, head = int(binary.BigEndian.Uint16(got[2:])), 4
		case 127:
			size, head = int(binary.BigEndian.Uint64(got[2:])), 10
		}
		if got[0] != 0x81 || size != n || !bytes.Equal(got[head:], text) || head > maxFrameHead {
			t.Errorf("%d bytes: head %x", n, got[:head])
		}
	}
}

func TestWireTimes(t *testing.T) {
	open := func() *wire {
		a, b := net.Pipe() // nobody reads
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		return &wire{Conn: a}
	}
	w := open()
	if err := w.write([]byte("x"), time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) || w.isHurried() {
		t.Errorf("a write that takes too long: %v", err)
	}
	w = open()
	failed := make(chan error, 1)
	go func() { failed <- w.write([]byte("x"), time.Hour) }()
	w.hurry(time.Millisecond) // before the write begins or after
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) || !w.isHurried() {
		t.Errorf("a write that was hurried: %v", err)
	}
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	w = &wire{Conn: a}
	if _, err := w.Write([]byte{0x88, 0}); err != nil {
		t.Fatal(err)
	}
	if err := w.write([]byte("x"), time.Hour); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a frame behind the close frame: %v", err)
	}
}
