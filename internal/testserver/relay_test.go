package testserver_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// echoServer answers what it is sent.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn) // until it ends
			}()
		}
	}()
	return l.Addr().String()
}

type echo struct {
	t *testing.T
	net.Conn
}

func dialRelay(t *testing.T, r *testserver.Relay) echo {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return echo{t, conn}
}

func (e echo) say(text string) {
	e.t.Helper()
	if _, err := io.WriteString(e, text); err != nil {
		e.t.Fatal(err)
	}
}

func (e echo) hears(text string) {
	e.t.Helper()
	_ = e.SetReadDeadline(time.Now().Add(30 * time.Second)) // it is open
	buffer := make([]byte, len(text))
	if _, err := io.ReadFull(e, buffer); err != nil || string(buffer) != text {
		e.t.Fatalf("heard %q, %v; want %q", buffer, err, text)
	}
}

func (e echo) hearsNothing() {
	e.t.Helper()
	_ = e.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // it is open
	if n, err := e.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		e.t.Fatalf("heard %d bytes, %v", n, err)
	}
}

func TestRelay(t *testing.T) {
	r := testserver.NewRelay(t, echoServer(t))
	a := dialRelay(t, r)
	a.say("one")
	a.hears("one")
	for _, cut := range []func(){r.Cut, r.CutToServer, r.CutToClient} {
		cut()
		late := dialRelay(t, r)
		a.say("two")
		late.say("late")
		a.hearsNothing()
		late.hearsNothing()
		r.Heal()
		a.hears("two")
		late.hears("late")
	}
	r.Slow(time.Millisecond, 100<<10)
	begun := time.Now()
	a.say(strings.Repeat("x", 20<<10))
	a.hears(strings.Repeat("x", 20<<10))
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("20 KB at 100 KB/s took %v", took)
	}
	r.Cut()
	r.Forget()
	a.say("three")
	a.hearsNothing()
	b := dialRelay(t, r)
	b.say("four")
	b.hears("four")
	r.Reset()
	_ = b.SetReadDeadline(time.Now().Add(30 * time.Second)) // it is open
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Reset: %v", err)
	}
}
