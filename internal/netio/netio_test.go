package netio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns both ends of a connection.
func pair(t testing.TB, network string) (ours *Conn, theirs net.Conn) {
	t.Helper()
	if network == "pipe" {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		return New(a), b
	}
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return New(a), b
}

func networks(t *testing.T, f func(t *testing.T, ours *Conn, theirs net.Conn)) {
	for _, network := range []string{"tcp", "unix", "pipe"} {
		t.Run(network, func(t *testing.T) {
			ours, theirs := pair(t, network)
			f(t, ours, theirs)
		})
	}
}

// More than any socket holds goes both ways at once.
func TestBothWays(t *testing.T) {
	networks(t, func(t *testing.T, ours *Conn, theirs net.Conn) {
		const size = 8 << 20
		sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		type result struct {
			text []byte
			err  error
		}
		got := make(chan result, 2)
		read := func(r io.Reader) {
			b := make([]byte, size)
			_, err := io.ReadFull(r, b)
			got <- result{b, err}
		}
		go read(ours)
		go read(theirs)
		go func() { _, _ = theirs.Write(sent) }()
		if n, err := ours.Write(sent); n != size || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		for range 2 {
			if r := <-got; r.err != nil || !bytes.Equal(r.text, sent) {
				t.Errorf("read something else, %v", r.err)
			}
		}
	})
}

func TestEndAndErrors(t *testing.T) {
	networks(t, func(t *testing.T, ours *Conn, theirs net.Conn) {
		if err := ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("at the deadline: %v", err)
		}
		if err := ours.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		if n, err := ours.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %d, %v", n, err)
		}
		var err error
		for range 100 { // the first bytes may still be taken by the system
			if _, err = ours.Write([]byte("x")); err != nil {
				break
			}
		}
		if err == nil {
			t.Error("writing to nobody succeeds")
		}
		ours.Close()
		if _, err := ours.Read(make([]byte, 1)); err == nil {
			t.Error("a closed connection is read")
		}
		if _, err := ours.Write([]byte("x")); err == nil {
			t.Error("a closed connection is written")
		}
	})
}

func TestCloseEndsAWait(t *testing.T) {
	networks(t, func(t *testing.T, ours *Conn, _ net.Conn) {
		ended := make(chan error)
		go func() { _, err := ours.Read(make([]byte, 1)); ended <- err }()
		ours.Close()
		if err := <-ended; err == nil {
			t.Error("the read succeeded")
		}
	})
}

// onLinux skips where nothing can be sent ahead.
func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux sends ahead")
	}
}

func TestAhead(t *testing.T) {
	onLinux(t)
	networks(t, func(t *testing.T, ours *Conn, theirs net.Conn) {
		if !ours.Ahead([]byte("question")) {
			if _, isPipe := theirs.(*net.TCPConn); isPipe {
				t.Error("a socket cannot send ahead")
			}
			return
		}
		go func() {
			b := make([]byte, len("question"))
			if _, err := io.ReadFull(theirs, b); err == nil && string(b) == "question" {
				_, _ = theirs.Write([]byte("answer"))
			}
		}()
		b := make([]byte, 100)
		n, err := ours.Read(b)
		if string(b[:n]) != "answer" || err != nil || ours.Sent() != len("question") {
			t.Errorf("got %q, %v, sent %d", b[:n], err, ours.Sent())
		}
		// What is sent ahead is sent once.
		if _, err := theirs.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		if n, err = ours.Read(b); string(b[:n]) != "more" || err != nil {
			t.Errorf("got %q, %v", b[:n], err)
		}
	})
}

// An answer that comes after the deadline is not lost.
func TestAheadAndTheDeadline(t *testing.T) {
	onLinux(t)
	ours, theirs := pair(t, "tcp")
	b := make([]byte, 100)
	ours.Ahead([]byte("q"))
	eventually(t, "it is sent", func() bool { // not when the deadline is over before the read begins
		if err := ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return ours.Sent() == 1
	})
	if _, err := theirs.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := ours.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := ours.Read(b); string(b[:n]) != "a" || err != nil {
		t.Errorf("got %q, %v", b[:n], err)
	}
	// A deadline that has passed lets nothing out.
	if err := ours.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	ours.Ahead([]byte("q"))
	for range 2 {
		if _, err := ours.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || ours.Sent() != 0 {
			t.Errorf("%v, sent %d", err, ours.Sent())
		}
	}
	// It is not forgotten, though.
	if err := ours.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(theirs, theirs) }()
	if n, err := ours.Read(b); string(b[:n]) != "qq" && string(b[:n]) != "q" || err != nil || ours.Sent() != 1 {
		t.Errorf("got %q, %v, sent %d", b[:n], err, ours.Sent())
	}
	theirs.Close()
}

// A socket that takes only some of it says so, and loses nothing.
func TestAheadWhenFull(t *testing.T) {
	onLinux(t)
	ours, theirs := pair(t, "tcp")
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	ours.Ahead(sent)
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, ErrFull) || ours.Sent() >= len(sent) {
		t.Fatalf("%v, sent %d", err, ours.Sent())
	}
	go func() { _, _ = ours.Write(sent[ours.Sent():]); _ = ours.CloseWrite() }()
	got, err := io.ReadAll(theirs)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(sent), err)
	}
}

// Whoever sends to a peer that has gone is told, and does not wait for ever.
func TestAheadToNobody(t *testing.T) {
	onLinux(t)
	for _, network := range []string{"tcp", "unix"} {
		ours, theirs := pair(t, network)
		theirs.Close()
		for i := range 2 { // the first may still be taken by the system
			ours.Ahead([]byte("q"))
			if n, err := ours.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s, %d: read %d bytes", network, i, n)
			}
		}
	}
}

func TestSilent(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		ours, theirs := pair(t, network)
		if err := ours.SetReadDeadline(time.Unix(1, 0)); err != nil { // it has nothing to do with it
			t.Fatal(err)
		}
		if !ours.Silent() {
			t.Errorf("%s: not silent at first", network)
		}
		if _, err := theirs.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, network+": a byte is noticed", func() bool { return !ours.Silent() })
		if err := ours.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(make([]byte, 1)); err != nil || !ours.Silent() {
			t.Errorf("%s: not silent after the byte was read, %v", network, err)
		}
		theirs.Close()
		eventually(t, network+": the end is noticed", func() bool { return !ours.Silent() })
		ours.Close()
		if ours.Silent() {
			t.Errorf("%s: a closed connection is silent", network)
		}
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(what + ": not so")
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	onLinux(t)
	if racing {
		t.Skip("the race detector's calls allocate")
	}
	ours, theirs := pair(t, "tcp")
	go func() { _, _ = io.Copy(theirs, theirs) }()
	out, in := []byte("hello"), make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		ours.Ahead(out)
		_, err := ours.Read(in)
		_, err2 := ours.Write(out)
		_, err3 := ours.Read(in)
		if errors.Join(err, err2, err3) != nil {
			t.Fatal(err, err2, err3)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	theirs.Close()
}
