package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/registry"
)

// wire is a TCP server that answers each request with bytes as they are and
// remembers what it was sent, byte for byte.
type wire struct {
	addr string

	mu    sync.Mutex
	heads []string
	conns int
}

// startWire answers every request with what answer returns for its head and
// body, and closes the connection when that says so or is empty.
func startWire(t testing.TB, answer func(head, body string) (out string, again bool)) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String()}
	var wg sync.WaitGroup
	live := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.conns++
			live[conn] = true
			w.mu.Unlock()
			wg.Go(func() {
				defer func() {
					w.mu.Lock()
					delete(live, conn)
					w.mu.Unlock()
					conn.Close()
				}()
				w.serve(conn, answer)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.mu.Lock()
		for conn := range live {
			conn.Close()
		}
		w.mu.Unlock()
		wg.Wait()
	})
	return w
}

func (w *wire) serve(conn net.Conn, answer func(head, body string) (string, bool)) {
	br := bufio.NewReader(conn)
	for {
		head, body, err := readRaw(br)
		if err != nil {
			return
		}
		w.mu.Lock()
		w.heads = append(w.heads, head)
		w.mu.Unlock()
		out, again := answer(head, body)
		if _, err := io.WriteString(conn, out); err != nil || !again {
			return
		}
	}
}

// readRaw reads a request: its head as it came, and its body, chunks as they are.
func readRaw(br *bufio.Reader) (head, body string, err error) {
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		line, err := br.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		b.WriteString(line)
	}
	head = b.String()
	_, fields, _ := strings.Cut(head, "\r\n")
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(fields))).ReadMIMEHeader()
	if err != nil {
		return "", "", err
	}
	if h.Get("Transfer-Encoding") == "chunked" {
		var raw strings.Builder
		for !strings.HasSuffix(raw.String(), "\r\n0\r\n\r\n") && !(strings.Contains(raw.String(), "0\r\n") && strings.HasSuffix(raw.String(), "\r\n\r\n")) {
			line, err := br.ReadString('\n')
			if err != nil {
				return "", "", err
			}
			raw.WriteString(line)
		}
		return head, raw.String(), nil
	}
	n, _ := strconv.Atoi(h.Get("Content-Length"))
	var buf bytes.Buffer
	_, err = io.CopyN(&buf, br, int64(n))
	return head, buf.String(), err
}

// last returns the head of the last request.
func (w *wire) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.heads) == 0 {
		return ""
	}
	return w.heads[len(w.heads)-1]
}

func (w *wire) connections() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conns
}

// at is the peer that speaks cleartext HTTP/1.1 at addr.
func at(addr string) discovery.Peer { return discovery.Peer{Addr: addr} }

// node makes a node of an address.
func node(t testing.TB, addr string, metadata map[string]string) *discovery.Node {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return discovery.NewNode(registry.Node{ID: "n", Address: host, Port: p, Metadata: metadata}, "")
}

// ok is an answer of status 200 with a length.
func ok(contentType, body string) string {
	return status(200, contentType, body)
}

func status(code int, contentType, body string) string {
	return "HTTP/1.1 " + strconv.Itoa(code) + " " + http.StatusText(code) + "\r\nContent-Type: " + contentType +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

func nodeError(err error) *NodeError {
	var e *NodeError
	if errors.As(err, &e) {
		return e
	}
	return nil
}
