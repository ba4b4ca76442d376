package sidecar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// witness is a node that answers whole requests and remembers every head that
// reached it, and which of them came with a whole body.
type witness struct {
	mu    sync.Mutex
	heads []string
	whole []string // the request lines of complete requests
}

func (w *witness) serve(conn *net.TCPConn, br *bufio.Reader) {
	for {
		m, err := readMessage(br, "")
		if m == nil {
			return
		}
		w.mu.Lock()
		w.heads = append(w.heads, m.line)
		if err == nil {
			w.whole = append(w.whole, m.line)
		}
		w.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, ok204); err != nil {
			return
		}
	}
}

// seen returns what came for a path.
func (w *witness) seen(path string) (heads, whole []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	other := func(line string) bool { return !strings.Contains(line, path) }
	return slices.DeleteFunc(slices.Clone(w.heads), other), slices.DeleteFunc(slices.Clone(w.whole), other)
}

// smuggled is what a request that was read wrongly would let through.
const smuggled = "GET /foo/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

// badHead makes a request of a bad head. Behind it come five bytes that are an
// empty chunked body as well, and a request of its own.
func badHead(fields string) string {
	return "POST /foo/ HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n0\r\n\r\n" + smuggled
}

// badRequests must be refused before anything of them reaches a node (RFC 9112
// sections 2.2, 3, 5 and 6).
var badRequests = map[string]string{
	// Content-Length
	"CL twice, different":    badHead("Content-Length: 0\r\nContent-Length: 5\r\n"),
	"CL twice, the same":     badHead("Content-Length: 5\r\nContent-Length: 5\r\n"),
	"CL twice, other case":   badHead("Content-Length: 5\r\ncontent-length: 6\r\n"),
	"CL, a list":             badHead("Content-Length: 5, 5\r\n"),
	"CL, a list of two":      badHead("Content-Length: 5,6\r\n"),
	"CL with a plus":         badHead("Content-Length: +5\r\n"),
	"CL, negative":           badHead("Content-Length: -1\r\n"),
	"CL, hexadecimal":        badHead("Content-Length: 0x5\r\n"),
	"CL with a space inside": badHead("Content-Length: 1 0\r\n"),
	"CL, empty":              badHead("Content-Length:\r\n"),
	"CL, a point":            badHead("Content-Length: 5.0\r\n"),
	"CL, an exponent":        badHead("Content-Length: 1e1\r\n"),
	"CL with an underscore":  badHead("Content-Length: 1_0\r\n"),
	"CL over 63 bits":        badHead("Content-Length: 9223372036854775808\r\n"),
	"CL over 64 bits":        badHead("Content-Length: 18446744073709551617\r\n"),
	"CL, other digits":       badHead("Content-Length: \xd9\xa5\r\n"),
	"CL, quoted":             badHead("Content-Length: \"5\"\r\n"),
	"CL, a semicolon":        badHead("Content-Length: 5;x\r\n"),
	"CL before the colon":    badHead("Content-Length : 5\r\n"),
	"CL, a tab before colon": badHead("Content-Length\t: 5\r\n"),
	"CL folded":              badHead("Content-Length:\r\n 5\r\n"),
	"CL, vertical tab":       badHead("Content-Length: \v5\r\n"),

	// Transfer-Encoding
	"CL and TE":               badHead("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
	"TE and CL":               badHead("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
	"CL 0 and TE":             badHead("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
	"CL and another TE":       badHead("Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
	"TE xchunked":             badHead("Transfer-Encoding: xchunked\r\n"),
	"TE chunkedx":             badHead("Transfer-Encoding: chunkedx\r\n"),
	"TE chunked, identity":    badHead("Transfer-Encoding: chunked, identity\r\n"),
	"TE identity, chunked":    badHead("Transfer-Encoding: identity, chunked\r\n"),
	"TE gzip, chunked":        badHead("Transfer-Encoding: gzip, chunked\r\n"),
	"TE chunked, chunked":     badHead("Transfer-Encoding: chunked, chunked\r\n"),
	"TE with a comma":         badHead("Transfer-Encoding: chunked,\r\n"),
	"TE, a comma first":       badHead("Transfer-Encoding: ,chunked\r\n"),
	"TE with a parameter":     badHead("Transfer-Encoding: chunked;q=1\r\n"),
	"TE quoted":               badHead("Transfer-Encoding: \"chunked\"\r\n"),
	"TE identity":             badHead("Transfer-Encoding: identity\r\n"),
	"TE gzip":                 badHead("Transfer-Encoding: gzip\r\n"),
	"TE empty":                badHead("Transfer-Encoding:\r\n"),
	"TE twice":                badHead("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
	"TE twice, one unknown":   badHead("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n"),
	"TE twice, unknown first": badHead("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"),
	"TE, a space before":      badHead("Transfer-Encoding : chunked\r\n"),
	"TE, a tab before colon":  badHead("Transfer-Encoding\t: chunked\r\n"),
	"TE, vertical tab":        badHead("Transfer-Encoding: \vchunked\r\n"),
	"TE, form feed":           badHead("Transfer-Encoding: chunked\f\r\n"),
	"TE, NUL":                 badHead("Transfer-Encoding: chunked\x00\r\n"),
	"TE, no-break space":      badHead("Transfer-Encoding: chunked\xa0\r\n"),
	"TE folded":               badHead("Transfer-Encoding:\r\n chunked\r\n"),
	"TE folded into another":  badHead("X: y\r\n Transfer-Encoding: chunked\r\n"),
	"TE behind a bare CR":     badHead("X: y\rTransfer-Encoding: chunked\r\n"),
	"TE behind a bare LF":     badHead("X: y\nTransfer-Encoding: chunked\r\n"),
	"TE over HTTP/1.0":        "POST /foo/ HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,

	// Lines and fields
	"bare LF everywhere":       "GET /foo/ HTTP/1.1\nHost: h\n\n" + smuggled,
	"bare LF behind the line":  "GET /foo/ HTTP/1.1\nHost: h\r\n\r\n",
	"bare LF behind a field":   badHead("X: y\n"),
	"bare LF at the end":       "GET /foo/ HTTP/1.1\r\nHost: h\r\n\n" + smuggled,
	"bare CR in a value":       badHead("X: a\rb\r\n"),
	"bare CR in a name":        badHead("X\ra: b\r\n"),
	"CR CR LF":                 badHead("X: a\r\r\n"),
	"NUL in a value":           badHead("X: a\x00b\r\n"),
	"NUL in a name":            badHead("X\x00: b\r\n"),
	"DEL in a value":           badHead("X: \x7f\r\n"),
	"a control character":      badHead("X: \x01\r\n"),
	"a fold":                   badHead("X: a\r\n b\r\n"),
	"a fold with a tab":        badHead("X: a\r\n\tb\r\n"),
	"a fold first":             "GET /foo/ HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n",
	"no colon":                 badHead("X\r\n"),
	"no name":                  badHead(": x\r\n"),
	"a space in a name":        badHead("X Y: z\r\n"),
	"a space before the colon": badHead("X : z\r\n"),
	"a quote in a name":        badHead("\"X\": z\r\n"),
	"a name beyond ASCII":      badHead("X\xe9: z\r\n"),
	"a slash in a name":        badHead("X/Y: z\r\n"),
	"a parenthesis in a name":  badHead("X(): z\r\n"),

	// Host
	"no Host":                  "GET /foo/ HTTP/1.1\r\n\r\n",
	"two Hosts":                "GET /foo/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"the same Host twice":      "GET /foo/ HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
	"a list of Hosts":          "GET /foo/ HTTP/1.1\r\nHost: a, b\r\n\r\n",
	"Host with a space":        "GET /foo/ HTTP/1.1\r\nHost: a b\r\n\r\n",
	"Host with a path":         "GET /foo/ HTTP/1.1\r\nHost: a/foo\r\n\r\n",
	"Host with a user":         "GET /foo/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
	"Host with a query":        "GET /foo/ HTTP/1.1\r\nHost: a?b\r\n\r\n",
	"Host beyond ASCII":        "GET /foo/ HTTP/1.1\r\nHost: \xe9\r\n\r\n",
	"a space behind Host":      "GET /foo/ HTTP/1.1\r\nHost : a\r\n\r\n",
	"no Host, absolute target": "GET http://h/foo/ HTTP/1.1\r\n\r\n",
	"two Hosts, absolute":      "GET http://a/foo/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",

	// The request line
	"HTTP/0.9":                    "GET /foo/\r\n\r\n",
	"HTTP/2.0":                    "GET /foo/ HTTP/2.0\r\nHost: h\r\n\r\n",
	"HTTP/1.2":                    "GET /foo/ HTTP/1.2\r\nHost: h\r\n\r\n",
	"HTTP/1.10":                   "GET /foo/ HTTP/1.10\r\nHost: h\r\n\r\n",
	"HTTP/01.1":                   "GET /foo/ HTTP/01.1\r\nHost: h\r\n\r\n",
	"HTTP/1":                      "GET /foo/ HTTP/1\r\nHost: h\r\n\r\n",
	"HTTP/1.1 and more":           "GET /foo/ HTTP/1.1 x\r\nHost: h\r\n\r\n",
	"lower case version":          "GET /foo/ http/1.1\r\nHost: h\r\n\r\n",
	"another protocol":            "GET /foo/ RTSP/1.1\r\nHost: h\r\n\r\n",
	"no method":                   " /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"a method with a colon":       "GE:T /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"a method in parentheses":     "(GET) /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"a method beyond ASCII":       "G\xc9T /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"NUL in the method":           "G\x00T /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"two spaces":                  "GET  /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"two spaces before version":   "GET /foo/  HTTP/1.1\r\nHost: h\r\n\r\n",
	"a tab between":               "GET\t/foo/\tHTTP/1.1\r\nHost: h\r\n\r\n",
	"a space at the end":          "GET /foo/ HTTP/1.1 \r\nHost: h\r\n\r\n",
	"a space in the target":       "GET /foo/a b HTTP/1.1\r\nHost: h\r\n\r\n",
	"a tab in the target":         "GET /foo/a\tb HTTP/1.1\r\nHost: h\r\n\r\n",
	"NUL in the target":           "GET /foo/\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
	"DEL in the target":           "GET /foo/\x7f HTTP/1.1\r\nHost: h\r\n\r\n",
	"bare CR in the target":       "GET /foo/\rX HTTP/1.1\r\nHost: h\r\n\r\n",
	"a target in no form":         "GET foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"a malformed absolute target": "GET http://h%zz/foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"no target":                   "GET HTTP/1.1\r\nHost: h\r\n\r\n",
	"a request line of one word":  "GET\r\nHost: h\r\n\r\n",
	"TLS":                         "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
	"five empty lines":            "\r\n\r\n\r\n\r\n\r\nGET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
}

// largeRequests are over the limits of a head.
var largeRequests = map[string]string{
	"a long target":   "GET /foo/" + strings.Repeat("x", 128<<10) + " HTTP/1.1\r\nHost: h\r\n\r\n",
	"a long method":   strings.Repeat("G", 128<<10) + " /foo/ HTTP/1.1\r\nHost: h\r\n\r\n",
	"a long value":    "GET /foo/ HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 128<<10) + "\r\n\r\n",
	"a long name":     "GET /foo/ HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("x", 128<<10) + ": y\r\n\r\n",
	"many fields":     "GET /foo/ HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 20<<10) + "\r\n",
	"too many fields": "GET /foo/ HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 300) + "\r\n",
	"no end":          "GET /foo/ HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 20<<10),
}

// badBodies break off while they stream: what of them has reached the node is
// never a whole request.
var badBodies = map[string]string{
	"negative":              "-1\r\nx\r\n0\r\n\r\n",
	"hexadecimal prefix":    "0x1\r\nx\r\n0\r\n\r\n",
	"a plus":                "+1\r\nx\r\n0\r\n\r\n",
	"a space first":         " 1\r\nx\r\n0\r\n\r\n",
	"a tab first":           "\t1\r\nx\r\n0\r\n\r\n",
	"an underscore":         "1_0\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n",
	"empty":                 "\r\nx\r\n0\r\n\r\n",
	"an extension alone":    ";x\r\n0\r\n\r\n",
	"no digit":              "g\r\nx\r\n0\r\n\r\n",
	"digits and letters":    "1g\r\nx\r\n0\r\n\r\n",
	"over 64 bits":          "10000000000000001\r\nx\r\n0\r\n\r\n",
	"63 bits":               "7fffffffffffffff1\r\nx\r\n0\r\n\r\n",
	"a bare LF":             "1\nx\r\n0\r\n\r\n",
	"a bare CR":             "1\rx\r\n0\r\n\r\n",
	"LF in an extension":    "1;a\nb\r\nx\r\n0\r\n\r\n",
	"CR in an extension":    "1;a\rb\r\nx\r\n0\r\n\r\n",
	"NUL in an extension":   "1;\x00\r\nx\r\n0\r\n\r\n",
	"an endless extension":  "1;" + strings.Repeat("a", 8<<10) + "\r\nx\r\n0\r\n\r\n",
	"too long data":         "1\r\nxy\r\n0\r\n\r\n",
	"data without CR LF":    "1\r\nx0\r\n\r\n",
	"data with LF":          "1\r\nx\n0\r\n\r\n",
	"data with CR":          "1\r\nx\r0\r\n\r\n",
	"the last with a LF":    "1\r\nx\r\n0\n\r\n",
	"no colon in a trailer": "1\r\nx\r\n0\r\nX\r\n\r\n",
	"a folded trailer":      "1\r\nx\r\n0\r\nX: a\r\n b\r\n\r\n",
	"a length in a trailer": "1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n",
	"a coding in a trailer": "1\r\nx\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
	"a host in a trailer":   "1\r\nx\r\n0\r\nHost: evil\r\n\r\n",
	"a space in a trailer":  "1\r\nx\r\n0\r\nX : a\r\n\r\n",
	"NUL in a trailer":      "1\r\nx\r\n0\r\nX: \x00\r\n\r\n",
	"LF in a trailer":       "1\r\nx\r\n0\r\nX: a\n\r\n",
	"an endless trailer":    "1\r\nx\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 64) + "\r\n",
	"a trailer of many":     "1\r\nx\r\n0\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\n",
}

func TestRequestsThatCouldSmuggle(t *testing.T) {
	for _, way := range bothWays {
		t.Run(way, func(t *testing.T) {
			var w witness
			s := proxying(t, startNode(t, w.serve), nil)
			var cases []badCase
			for name, text := range badRequests {
				cases = append(cases, badCase{name: name, text: text, status: 400})
			}
			for name, text := range largeRequests {
				cases = append(cases, badCase{name: name, text: text, status: 431})
			}
			for name, body := range badBodies {
				const head = "POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
				cases = append(cases, badCase{"body, " + name, head + body + smuggled, 400, 1})
			}
			for i, c := range cases {
				// The node tells the cases apart by their paths.
				c.text = strings.ReplaceAll(c.text, "/foo/", fmt.Sprintf("/foo/%d/", i))
				c.refused(t, s, way)
			}
			s.expect(204, "", "GET", "/foo/last", "", "") // what was let through before has arrived by then
			for i, c := range cases {
				if heads, whole := w.seen(fmt.Sprintf("/foo/%d/", i)); len(heads) > c.heads || len(whole) > 0 {
					t.Errorf("%s: the node got %q, of which whole %q", c.name, heads, whole)
				}
			}
		})
	}
}

// badCase is a request, the status that refuses it, and how many heads of it
// may reach the node before that is clear.
type badCase struct {
	name, text string
	status     int
	heads      int
}

// refused requires a refusal, once, and that the connection ends in order
// behind it.
func (b badCase) refused(t *testing.T, s *running, way string) {
	t.Helper()
	c := dialBy(t, s, way)
	defer c.conn.Close()
	_, _ = io.WriteString(c.conn, b.text) // a large one may be cut off
	m, err := readMessage(c.br, "GET")
	if err != nil || m.status() != b.status || m.value("Content-Type") != "application/json" {
		t.Errorf("%s: %.80q was answered %+v, %v", b.name, b.text, m, err)
		return
	}
	if m.value("Connection") != "close" {
		t.Errorf("%s: the refusal does not say that the connection ends: %q", b.name, m.fields)
	}
	rest, err := c.rest()
	if way != "fast" && errors.Is(err, syscall.ECONNRESET) {
		err = nil // net/http does not wait for what is still coming
	}
	if rest != "" || err != nil {
		t.Errorf("%s: behind the refusal came %.80q, %v", b.name, rest, err)
	}
}
