package sidecar

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rawNode is a node that speaks bytes: serve has each connection to itself.
type rawNode struct {
	l    net.Listener
	mu   sync.Mutex
	live map[net.Conn]bool
	all  sync.WaitGroup
	made int
}

func startNode(t testing.TB, serve func(conn *net.TCPConn, br *bufio.Reader)) *rawNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &rawNode{l: l, live: map[net.Conn]bool{}}
	n.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			n.live[conn] = true
			n.made++
			n.mu.Unlock()
			n.all.Go(func() {
				serve(conn.(*net.TCPConn), bufio.NewReader(conn))
				conn.Close()
				n.mu.Lock()
				delete(n.live, conn)
				n.mu.Unlock()
			})
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *rawNode) stop() {
	n.l.Close()
	n.mu.Lock()
	for conn := range n.live {
		conn.Close()
	}
	n.mu.Unlock()
	n.all.Wait()
}

// connections returns how many there are now, and how many there ever were.
func (n *rawNode) connections() (live, made int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.live), n.made
}

// readHead reads a head, its empty line included, and "" when there is none.
func readHead(br *bufio.Reader) string {
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		line, err := br.ReadString('\n')
		if err != nil {
			return ""
		}
		b.WriteString(line)
	}
	return b.String()
}

// field returns the first value of a field of a head.
func field(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// readBody reads the body that a head announces, chunks and trailers as they are.
func readBody(head string, br *bufio.Reader) string {
	if field(head, "Transfer-Encoding") != "" {
		var b strings.Builder
		for {
			line, err := br.ReadString('\n')
			b.WriteString(line)
			size, perr := strconv.ParseInt(strings.TrimSpace(line), 16, 64)
			if err != nil || perr != nil {
				return b.String()
			}
			if size == 0 {
				for {
					line, err := br.ReadString('\n')
					b.WriteString(line)
					if err != nil || line == "\r\n" {
						return b.String()
					}
				}
			}
			_, _ = io.CopyN(&b, br, size+2)
		}
	}
	n, _ := strconv.ParseInt(field(head, "Content-Length"), 10, 64)
	var b strings.Builder
	_, _ = io.CopyN(&b, br, n)
	return b.String()
}

// answering is a node that answers each request with answer's bytes and tells
// what it was sent; it closes the connection behind an answer that says so.
func answering(t testing.TB, answer func(head, body string) string) (*rawNode, <-chan string) {
	seen := make(chan string, 100)
	return startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for {
			head := readHead(br)
			if head == "" {
				return
			}
			body := readBody(head, br)
			select {
			case seen <- head + body:
			default:
			}
			out := answer(head, body)
			if _, err := io.WriteString(conn, out); err != nil || strings.Contains(out, "Connection: close") {
				return
			}
		}
	}), seen
}

// rawClient is a connection to the sidecar.
type rawClient struct {
	t    testing.TB
	conn *net.TCPConn
	br   *bufio.Reader
}

func dial(t testing.TB, s *running) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &rawClient{t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c *rawClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request and returns head and body of the answer as they came.
func (c *rawClient) ask(text string) (head, body string) {
	c.t.Helper()
	c.send(text)
	return c.answer(strings.HasPrefix(text, "HEAD "))
}

func (c *rawClient) answer(headOnly bool) (head, body string) {
	c.t.Helper()
	head = readHead(c.br)
	if head == "" {
		c.t.Fatal("no answer")
	}
	if headOnly || strings.Contains(head, " 304 ") || strings.Contains(head, " 1") && strings.HasPrefix(head, "HTTP/1.1 1") {
		return head, ""
	}
	return head, readBody(head, c.br)
}

// rest reads until the connection ends.
func (c *rawClient) rest() (string, error) {
	b, err := io.ReadAll(c.br)
	return string(b), err
}

// proxying starts a sidecar with --handler=proxy and a node of the service foo.
func proxying(t *testing.T, n *rawNode, change func(*Config)) *running {
	t.Helper()
	s := run(t, func(c *Config) {
		c.Handler = "proxy"
		if change != nil {
			change(c)
		}
	})
	s.registerRaw("foo", "n", n)
	return s
}

// noRetries has each request sent once, whatever its answer.
func noRetries(c *Config) { c.Retries = 0 }

func (r *running) registerRaw(name, id string, n *rawNode) {
	r.t.Helper()
	r.register("go.micro.srv."+name, id, &httptest.Server{Listener: n.l}, "")
}

const ok204 = "HTTP/1.1 204 No Content\r\n\r\n"

// startHTTP is a node that net/http serves.
func startHTTP(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// script is what a node says next.
type script struct{ text atomic.Value }

func (s *script) set(text string) { s.text.Store(text) }

func (s *script) get() string { text, _ := s.text.Load().(string); return text }
