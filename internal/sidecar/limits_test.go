package sidecar

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/testserver"
)

// The rows of the table in docs/security.md that have no test elsewhere.

// asked sends a text on a connection of its own and returns the status line.
func (r *running) asked(text string) string {
	r.t.Helper()
	conn := r.connect()
	go func() { _, _ = io.WriteString(conn, text) }() // the answer may come before it is read
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		r.t.Fatalf("no answer to %.40q: %v", text, err)
	}
	line, _, _ := bytes.Cut(answer, []byte("\r\n"))
	return string(line)
}

func (r *running) connect() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func TestHeadsThatAreTooLarge(t *testing.T) {
	r := run(t, nil)
	for _, path := range []string{"/livez", "/foo/bar"} { // one of each way in
		head := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n"
		for name, fields := range map[string]string{
			"one field": "X: " + strings.Repeat("x", http1.MaxHead) + "\r\n",
			"many":      strings.Repeat("X: y\r\n", http1.MaxFields+1),
		} {
			if got := r.asked(head + fields + "\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
				t.Errorf("%s, %s: %s", path, name, got)
			}
			// Behind a request that was fine.
			if got := r.asked("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + head + fields + "\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("%s, %s, second: %s", path, name, got)
			}
		}
	}
}

// A head that does not come to its end ends the connection, whichever way in it
// began on.
func TestHeadsThatTakeTooLong(t *testing.T) {
	t.Parallel()
	r := run(t, nil)
	for name, begin := range map[string]string{
		"the first":          "",
		"behind an own path": "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"behind a call":      "GET /foo/bar HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := r.connect()
			if _, err := io.WriteString(conn, begin+"GET /registry HTTP/1.1\r\nHost: loc"); err != nil {
				t.Fatal(err)
			}
			// One byte a second does not put the end off.
			done := make(chan struct{})
			go func() {
				defer close(done)
				ticks := time.NewTicker(time.Second)
				defer ticks.Stop()
				for range ticks.C {
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
				}
			}()
			answer, err := io.ReadAll(conn) // until it is closed
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("after a minute it is still open; it said %q", answer)
			}
			_ = conn.Close()
			<-done
		})
	}
}

// flood writes frames until the sidecar ends the connection or says that it has
// had enough, at most so many times, and waits for that.
func (r *running) flood(times int, wait time.Duration, write func(f *http2.Framer, n int) error) (ended bool) {
	conn := r.connect()
	f := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		r.t.Fatal(err)
	}
	if err := f.WriteSettings(); err != nil {
		r.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := frame.(*http2.GoAwayFrame); ok {
				return
			}
		}
	}()
	for n := range times {
		select {
		case <-gone:
			return true
		default:
		}
		if write(f, n) != nil {
			return true
		}
	}
	select {
	case <-gone:
		return true
	case <-time.After(wait):
		return false
	}
}

func TestHTTP2Floods(t *testing.T) {
	r := run(t, nil)
	var block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/registry"}, {":authority", "localhost"}} {
		if err := fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(f *http2.Framer, n int, end bool) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: end})
	}
	more := bytes.Repeat([]byte{0, 1, 'x', 0x7f, 0}, 3000) // literal fields that are not to be remembered
	for name, test := range map[string]struct {
		write func(*http2.Framer, int) error
		ends  bool // or it may go on: nothing is kept
	}{
		"fields without end (CONTINUATION)": {func(f *http2.Framer, n int) error {
			if n == 0 {
				return begin(f, 0, false)
			}
			return f.WriteContinuation(1, false, more)
		}, true},
		"streams reset at once": {func(f *http2.Framer, n int) error {
			if err := begin(f, n, true); err != nil {
				return err
			}
			return f.WriteRSTStream(uint32(2*n+1), http2.ErrCodeCancel)
		}, false},
		"settings": {func(f *http2.Framer, _ int) error { return f.WriteSettings() }, false},
		"pings":    {func(f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			wait := time.Duration(0)
			if test.ends {
				wait = 30 * time.Second
			}
			ended := make(chan bool, 1)
			go func() { ended <- r.flood(20_000, wait, test.write) }()
			for over := false; !over; { // others are served meanwhile
				r.expect(200, "", http.MethodGet, "/livez", "", "")
				select {
				case got := <-ended:
					over = true
					if test.ends && !got {
						t.Error("the connection goes on")
					}
				default:
				}
			}
		})
	}
}

// Slow clients of every kind do not keep others from being served.
func TestSlowClients(t *testing.T) {
	program := testserver.SlowHTTPTest(t)
	large := strings.Repeat("x", 256<<10)
	n, _ := answering(t, func(string, string) string {
		return "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(large)) + "\r\n\r\n" + large
	})
	r := proxying(t, n, nil)
	for mode, args := range map[string][]string{
		"slow heads":  {"-H", "-u", r.url + "/foo/"},
		"own path":    {"-H", "-u", r.url + "/registry"},
		"slow bodies": {"-B", "-s", "8192", "-u", r.url + "/broker?topic=t"},
		"slow reads":  {"-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-u", r.url + "/foo/"},
		"ranges":      {"-R", "-u", r.url + "/foo/"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			args = append(args, "-c", "200", "-r", "100", "-i", "2", "-l", "8", "-p", "20")
			type result struct {
				out []byte
				err error
			}
			done := make(chan result, 1)
			go func() {
				out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
				done <- result{out, err}
			}()
			served, slowest := 0, time.Duration(0)
			for {
				begun := time.Now()
				r.expect(200, "", http.MethodGet, "/registry", "", "")
				slowest = max(slowest, time.Since(begun))
				served++
				select {
				case got := <-done:
					if !bytes.Contains(got.out, []byte("slow HTTP test status")) {
						t.Fatalf("slowhttptest did not run: %v\n%s", got.err, got.out)
					}
					t.Logf("served %d requests meanwhile, the slowest in %v", served, slowest)
					if served < 3 { // the slow ones are there for eight seconds
						t.Errorf("only %d requests of another client were served", served)
					}
					return
				default:
				}
			}
		})
	}
}
