package tunnel

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// conn is what the connections of these tests have in common.
type conn interface {
	net.Conn
	CloseWrite() error
}

// pair returns the two ends of a connection.
func pair(t testing.TB, network, address string) (near, far conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	out, err := net.Dial(network, l.Addr().String())
	in := <-accepted
	if err != nil || in == nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{in, out} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
	}
	return out.(conn), in.(conn)
}

func tcp(t testing.TB) (near, far conn) { return pair(t, "tcp", "127.0.0.1:0") }

func unix(t testing.TB) (near, far conn) {
	return pair(t, "unix", filepath.Join(t.TempDir(), "s"))
}

// secure is a TLS connection over TCP.
func secure(t testing.TB) (near, far conn) {
	t.Helper()
	out, in := tcp(t)
	server := tls.Server(in, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	client := tls.Client(out, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// ends are the far ends of a tunnel under test.
type ends struct {
	client, node conn
	cut          context.CancelFunc
	done         chan struct{}
}

// join starts a tunnel between two connections.
func join(t testing.TB, connect func(testing.TB) (near, far conn), early string) ends {
	t.Helper()
	client, a := connect(t)
	node, b := connect(t)
	ctx, cut := context.WithCancel(t.Context())
	t.Cleanup(cut)
	e := ends{client, node, cut, make(chan struct{})}
	go func() {
		defer close(e.done)
		Join(ctx, &Conn{Conn: a, Early: []byte(early)}, &Conn{Conn: b})
	}()
	return e
}

// wait waits for the end of the tunnel.
func (e *ends) wait(t testing.TB) {
	t.Helper()
	select {
	case <-e.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the tunnel has not ended")
	}
}

var networks = map[string]func(testing.TB) (near, far conn){"tcp": tcp, "unix": unix, "tls": secure}

func TestEndsPass(t *testing.T) {
	for name, connect := range networks {
		t.Run(name, func(t *testing.T) {
			e := join(t, connect, "early ")
			if _, err := io.WriteString(e.client, "late"); err != nil {
				t.Fatal(err)
			}
			if err := e.client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(e.node); err != nil || string(got) != "early late" {
				t.Errorf("the node got %q, %v", got, err)
			}
			// The other direction lives on.
			if _, err := io.WriteString(e.node, "bye"); err != nil {
				t.Fatal(err)
			}
			if err := e.node.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(e.client); err != nil || string(got) != "bye" {
				t.Errorf("the client got %q, %v", got, err)
			}
			e.wait(t)
		})
	}
}

// Pieces of all sizes around those of the buffers, both ways at once.
func TestBytesPass(t *testing.T) {
	sizes := []int{1, 1023, 1024, 1025, 16<<10 - 1, 32<<10 - 1, 32 << 10, 32<<10 + 1, 1 << 20}
	total := 0
	for _, size := range sizes {
		total += size
	}
	for name, connect := range networks {
		t.Run(name, func(t *testing.T) {
			e := join(t, connect, "")
			results := make(chan error, 4)
			exchange := func(c conn, own, others byte) {
				go func() {
					b := noise(own, total)
					for _, size := range sizes {
						if _, err := c.Write(b[:size]); err != nil {
							results <- err
							return
						}
						b = b[size:]
					}
					results <- c.CloseWrite()
				}()
				go func() {
					got, err := io.ReadAll(c)
					if err == nil && !bytes.Equal(got, noise(others, total)) {
						err = fmt.Errorf("something else arrived, %d bytes", len(got))
					}
					results <- err
				}()
			}
			exchange(e.client, 1, 2)
			exchange(e.node, 2, 1)
			for range 4 {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
			e.wait(t)
		})
	}
}

// noise is n bytes that depend on seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = mrand.NewChaCha8([32]byte{seed}).Read(b) // it never fails
	return b
}

// A side that breaks does not seem to the other to have ended in good order,
// nor does a tunnel that is cut.
func TestBreaksPass(t *testing.T) {
	for name, connect := range networks {
		if name == "unix" {
			continue // its connections do not break
		}
		for what, breaks := range map[string]func(*ends) []conn{
			"client": func(e *ends) []conn { Abort(&Conn{Conn: e.client}); return []conn{e.node} },
			"node":   func(e *ends) []conn { Abort(&Conn{Conn: e.node}); return []conn{e.client} },
			"cut":    func(e *ends) []conn { e.cut(); return []conn{e.client, e.node} },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				e := join(t, connect, "")
				if _, err := io.WriteString(e.client, "x"); err != nil { // the tunnel stands
					t.Fatal(err)
				}
				if _, err := io.ReadFull(e.node, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				for _, c := range breaks(&e) {
					if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("the other side got %q, %v", got, err)
					}
				}
				e.wait(t)
			})
		}
	}
}

// What one side has sent and ended with reaches the other though the sender is
// gone meanwhile and cannot be told anything.
func TestLastWordsOfASideThatIsGone(t *testing.T) {
	e := join(t, tcp, "")
	want := noise(3, 8<<20) // more than the systems' buffers hold
	sent := make(chan error, 1)
	go func() {
		_, err := e.node.Write(want)
		sent <- errors.Join(err, e.node.Close())
	}()
	if err := e.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(e.client); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	e.wait(t)
}

func TestSlowReaderHoldsTheWriterBack(t *testing.T) {
	for name, connect := range networks {
		t.Run(name, func(t *testing.T) {
			e := join(t, connect, "")
			const limit = 64 << 20 // far beyond the systems' buffers
			if err := e.client.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			sent, piece := 0, make([]byte, 256<<10)
			for sent < limit {
				n, err := e.client.Write(piece)
				sent += n
				if err != nil {
					break
				}
			}
			if sent >= limit {
				t.Errorf("%d bytes were taken for a node that does not read", sent)
			}
			e.cut()
			e.wait(t)
		})
	}
}

// A connection that cannot be half-closed, or read by hand, is joined as well;
// nothing ends it but its ends.
func TestPipesJoinedForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, a := net.Pipe()
		node, b := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			Join(t.Context(), a, b)
		}()
		for _, text := range []string{"now", "much later"} {
			go func() { _, _ = io.WriteString(client, text) }()
			got := make([]byte, len(text))
			if _, err := io.ReadFull(node, got); err != nil || string(got) != text {
				t.Fatalf("got %q, %v", got, err)
			}
			time.Sleep(100 * time.Hour)
		}
		_ = client.Close()
		if rest, err := io.ReadAll(node); err != nil || len(rest) > 0 {
			t.Errorf("behind the end: %q, %v", rest, err)
		}
		<-done
	})
}

// A tunnel that was busy holds no buffers when it is idle.
func TestIdleTunnelsHoldLittle(t *testing.T) {
	const tunnels, message, most = 100, 64 << 10, 16 << 10
	before := inUse()
	all := make([]ends, tunnels)
	for i := range all {
		all[i] = join(t, tcp, "")
		for _, way := range [][2]conn{{all[i].client, all[i].node}, {all[i].node, all[i].client}} {
			go func() { _, _ = way[0].Write(make([]byte, message)) }() // whether it arrives is seen below
			if n, err := io.CopyN(io.Discard, way[1], message); err != nil {
				t.Fatal(n, err)
			}
		}
	}
	var each int64
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if each = (inUse() - before) / tunnels; each <= most {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("an idle tunnel holds %d bytes", each)
		}
	}
	t.Logf("an idle tunnel holds %d bytes, the far ends included", each)
	for i := range all {
		all[i].cut()
		all[i].wait(t)
	}
}

// inUse is the memory in use by objects and stacks in bytes; pools are emptied
// by two collections.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Messages of 64 KiB through a tunnel and back.
func BenchmarkMessages(b *testing.B) {
	for name, connect := range map[string]func(testing.TB) (near, far conn){"tcp": tcp, "tls": secure} {
		b.Run(name, func(b *testing.B) {
			e := join(b, connect, "")
			go func() { _, _ = io.Copy(struct{ io.Writer }{e.node}, struct{ io.Reader }{e.node}) }() // until it is cut
			message, got := make([]byte, 64<<10), make([]byte, 64<<10)
			b.SetBytes(2 * int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				go func() { _, _ = e.client.Write(message) }() // read below
				if _, err := io.ReadFull(e.client, got); err != nil {
					b.Fatal(err)
				}
			}
			e.cut()
			e.wait(b)
		})
	}
}
