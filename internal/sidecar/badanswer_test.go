package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// badAnswers make no sense, or could be read in two ways: the client gets a 502
// and not a byte of them.
var badAnswers = map[string]string{
	"CL twice, different":      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nevil-body",
	"CL twice, the same":       "HTTP/1.1 200 OK\r\nContent-Length: 9\r\ncontent-length: 9\r\n\r\nevil-body",
	"CL, a list":               "HTTP/1.1 200 OK\r\nContent-Length: 9, 9\r\n\r\nevil-body",
	"CL with a plus":           "HTTP/1.1 200 OK\r\nContent-Length: +9\r\n\r\nevil-body",
	"CL, negative":             "HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nevil-body",
	"CL, hexadecimal":          "HTTP/1.1 200 OK\r\nContent-Length: 0x9\r\n\r\nevil-body",
	"CL, empty":                "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nevil-body",
	"CL over 64 bits":          "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551625\r\n\r\nevil-body",
	"CL and TE":                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE and CL":                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE xchunked":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE chunked, identity":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE gzip, chunked":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE twice":                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE, a space before":       "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE, vertical tab":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: \vchunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE folded":                "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE over HTTP/1.0":         "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE in a 204":              "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"TE in a 103":              "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nevil-body\r\n0\r\n\r\n",
	"bare LF":                  "HTTP/1.1 200 OK\nContent-Length: 9\n\nevil-body",
	"bare LF behind a field":   "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 9\r\n\r\nevil-body",
	"bare LF at the end":       "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\nevil-body",
	"bare CR in a value":       "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil\r\nContent-Length: 9\r\n\r\nevil-body",
	"NUL in a value":           "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 9\r\n\r\nevil-body",
	"a fold":                   "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 9\r\n\r\nevil-body",
	"no colon":                 "HTTP/1.1 200 OK\r\nevil\r\nContent-Length: 9\r\n\r\nevil-body",
	"no name":                  "HTTP/1.1 200 OK\r\n: evil\r\nContent-Length: 9\r\n\r\nevil-body",
	"a space in a name":        "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 9\r\n\r\nevil-body",
	"a space before the colon": "HTTP/1.1 200 OK\r\nX : z\r\nContent-Length: 9\r\n\r\nevil-body",
	"a control in the reason":  "HTTP/1.1 200 O\x01K\r\nContent-Length: 9\r\n\r\nevil-body",
	"bare CR in the reason":    "HTTP/1.1 200 O\rK\r\nContent-Length: 9\r\n\r\nevil-body",
	"status of two digits":     "HTTP/1.1 20 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"status of four digits":    "HTTP/1.1 2000 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"status with a sign":       "HTTP/1.1 +20 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"status 0":                 "HTTP/1.1 000 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"status 099":               "HTTP/1.1 099 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"no status":                "HTTP/1.1\r\nContent-Length: 9\r\n\r\nevil-body",
	"a tab behind the version": "HTTP/1.1\t200 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"HTTP/2.0":                 "HTTP/2.0 200 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"HTTP/1.2":                 "HTTP/1.2 200 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"lower case":               "http/1.1 200 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"ICY":                      "ICY 200 OK\r\nContent-Length: 9\r\n\r\nevil-body",
	"HTTP/0.9":                 "<html>evil-body</html>\r\n\r\n",
	"a request":                "GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n",
	"TLS":                      "\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
	"HTTP/2 frames":            "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
	"nothing":                  "",
	"half a head":              "HTTP/1.1 200 OK\r\nX: evil\r\n",
	"a long head":              "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 128<<10) + "\r\n\r\nevil-body",
	"many fields":              "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 20<<10) + "\r\n",
	"too many fields":          "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 300) + "Content-Length: 9\r\n\r\nevil-body",
	"a 101 that nobody wanted": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\nevil-body",
	"hints and then nonsense":  "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nevil\r\n\r\n",
	"hints without end":        strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000),
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	var answer script
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		if m, err := readMessage(br, ""); m == nil || err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer.get()) // a long one may be cut off
		// An orderly end: the answer itself is what is wrong.
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, br)
	})
	s := proxying(t, n, nil)
	for _, way := range bothWays {
		c := dialBy(t, s, way)
		for name, text := range badAnswers {
			answer.set(text)
			for _, request := range []string{"GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"} {
				c.send(request)
				m, err := readAnswer(c.br)
				if err != nil || m.status() != 502 || strings.Contains(m.body, "evil-body") || strings.Contains(strings.Join(m.fields, "\n"), "evil") {
					t.Fatalf("%s, %s: %.80q became %+v, %v", way, name, text, m, err)
				}
			}
		}
		answer.set(ok204)
		if head, _ := c.ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"); head != ok204 {
			t.Errorf("%s: the connection's last answer: %q", way, head)
		}
	}
}

// readAnswer reads the real answer, past 1xx ones.
func readAnswer(br *bufio.Reader) (*message, error) {
	for {
		m, err := readMessage(br, "GET")
		if err != nil || m.status() >= 200 {
			return m, err
		}
	}
}

// badEnds are answers that end before their end, in order or by a reset.
var badEnds = map[string]string{
	"sized, nothing":         "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
	"sized, some":            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
	"sized, all but a byte":  "HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n" + strings.Repeat("x", 100000),
	"sized over HTTP/1.0":    "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhello",
	"chunked, nothing":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	"chunked, half a size":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1",
	"chunked, half a chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
	"chunked, a chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	"chunked, no empty line": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	"chunked, half the end":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r",
	"half a trailer":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
	"a bad size":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n-1\r\n\r\n0\r\n\r\n",
	"a size with 0x":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0x0\r\n\r\n",
	"a size with a bare LF":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\r\n",
	"a long chunk":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
	"a bad trailer":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX : y\r\n\r\n",
	"a length in a trailer":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
}

// untilReset is an answer whose end is the connection's: only a reset tells
// that it is none.
const untilReset = "HTTP/1.1 200 OK\r\n\r\nhello"

// A client never takes half an answer for a whole one, whichever way it came in
// and whatever it speaks.
func TestAnswersThatBreakOff(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"end", "reset"} {
		var answer script
		n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
			if m, err := readMessage(br, ""); m == nil || err != nil {
				return
			}
			_, _ = io.WriteString(conn, answer.get())
			if how == "reset" { // which must not overtake what it cuts off, see cut
				_, _ = io.Copy(io.Discard, br)
			}
		})
		s := proxying(t, n, nil)
		ends := []string{}
		for _, text := range badEnds {
			ends = append(ends, text)
		}
		if how == "reset" {
			ends = []string{untilReset, badEnds["sized, some"], badEnds["chunked, a chunk"]}
		}
		for _, way := range bothWays {
			for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
				for _, text := range ends {
					answer.set(text)
					brokenAnswer(t, s, n, way, version, text, how)
				}
			}
		}
	}
}

// brokenAnswer requires that an answer that breaks off is a 502 or a broken
// one.
func brokenAnswer(t *testing.T, s *running, n *rawNode, way, version, text, how string) {
	t.Helper()
	c := dial(t, s)
	defer c.conn.Close()
	target := "/foo/"
	if way != "fast" {
		target = "http://h/foo/" // hands the connection over
	}
	c.send("GET " + target + " " + version + "\r\nHost: h\r\n\r\n")
	if how == "reset" {
		head := readHead(c.br) // it has come through
		if !strings.Contains(head, " 200 ") {
			t.Errorf("%s, %s, %.60q: %q", way, version, text, head)
			return
		}
		n.cut()
		rest, err := c.rest()
		whole := strings.HasSuffix(rest, "\r\n0\r\n\r\n") || err == nil && (version == "HTTP/1.0" || strings.Contains(head, "Content-Length: 5\r\n"))
		if whole {
			t.Errorf("%s, %s: %q, cut off, passed for %q %q", way, version, text, head, rest)
		}
		return
	}
	m, err := readMessage(c.br, "GET")
	if err == nil && m.status() != 502 {
		t.Errorf("%s, %s: %.120q passed for %s %q, %d bytes", way, version, text, m.line, m.fields, len(m.body))
	}
}

// cut resets all connections.
func (n *rawNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for conn := range n.live {
		_ = conn.(*net.TCPConn).SetLinger(0) // at worst the end is an orderly one
		_ = conn.Close()
	}
}

// evilAnswer is one that nobody asked for.
const evilAnswer = "HTTP/1.1 200 OK\r\nX-Evil: yes\r\nContent-Length: 4\r\n\r\nevil"

// A second answer behind the first belongs to nobody: neither when it comes at
// once, nor when it comes while the connection is idle, nor from a node that
// was in order for some requests.
func TestSecondAnswersGoToNobody(t *testing.T) {
	t.Parallel()
	arrived, written := make(chan bool), make(chan bool)
	var answer script
	var behaves atomic.Int64 // for how many requests a connection
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for i := int64(0); ; i++ {
			m, err := readMessage(br, "")
			if m == nil || err != nil {
				return
			}
			first, late := strings.CutSuffix(answer.get(), "late")
			evil := ""
			if i >= behaves.Load() {
				evil = evilAnswer
			}
			if !late {
				first += evil
			}
			_, _ = io.WriteString(conn, first) // what fails is seen by the client
			if !late {
				continue
			}
			select {
			case <-arrived:
				_, _ = io.WriteString(conn, evil)
				written <- true
			case <-t.Context().Done(): // the test has failed
				return
			}
		}
	})
	s := proxying(t, n, nil)
	for _, quiet := range []int64{0, 1, 3} {
		behaves.Store(quiet)
		for _, first := range []string{
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
			"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		} {
			for _, way := range bothWays {
				answer.set(first)
				evilGoesToNobody(t, s, way, func() {})
				answer.set(first + "late")
				evilGoesToNobody(t, s, way, func() { arrived <- true; <-written })
			}
		}
	}
}

// evilGoesToNobody sends requests one by one and looks at the answers; behind
// is called after each.
func evilGoesToNobody(t *testing.T, s *running, way string, behind func()) {
	t.Helper()
	c := dialBy(t, s, way)
	defer c.conn.Close()
	for i := range 12 {
		method := []string{"GET", "HEAD", "POST", "GET"}[i%4]
		c.send(method + " /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		m, err := readMessage(c.br, method)
		if err != nil || m.value("X-Evil") != "" || strings.Contains(m.body, "evil") {
			t.Fatalf("%s, request %d: %+v, %v", way, i, m, err)
		}
		behind()
	}
}

// A node that dribbles its head, or never ends it, is given up in time.
func TestSlowAndEndlessHeads(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		m, err := readMessage(br, "")
		if m == nil || err != nil {
			return
		}
		text, pause := "X: y\r\n", time.Duration(0)
		if strings.Contains(m.line, "/slow") {
			pause = 20 * time.Millisecond
		}
		if strings.Contains(m.line, "/hints") {
			text = "HTTP/1.1 102 Processing\r\n\r\n"
		}
		for out := "HTTP/1.1 200 OK\r\n"; ; out = text {
			if strings.Contains(m.line, "/hints") {
				out = text
			}
			if _, err := io.WriteString(conn, out); err != nil {
				return
			}
			time.Sleep(pause)
		}
	})
	short := proxying(t, n, func(c *Config) { c.RequestTimeout = 300 * time.Millisecond })
	long := proxying(t, n, func(c *Config) { c.RequestTimeout = 30 * time.Second }) // the limits are found out before
	for target, want := range map[string]int{"/foo/slow": 504, "/foo/endless": 502, "/foo/hints": 502, "/foo/slow/hints": 504} {
		for _, way := range bothWays {
			s := long
			if want == 504 {
				s = short
			}
			c := dialBy(t, s, way)
			begun := time.Now()
			c.send(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target))
			m, err := readAnswer(c.br)
			if err != nil || m.status() != want {
				t.Errorf("%s, %s: got %+v, %v, want %d", way, target, m, err, want)
			}
			if took := time.Since(begun); want == 504 && (took < 300*time.Millisecond || took > 10*time.Second) {
				t.Errorf("%s, %s: it took %v", way, target, took)
			}
		}
	}
	eventually(t, "the node is left alone", func() bool { live, _ := n.connections(); return live == 0 })
}
