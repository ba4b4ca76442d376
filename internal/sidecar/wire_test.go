package sidecar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// message is an HTTP/1.1 message as it stood on the wire, read by a parser that
// shares nothing with ours.
type message struct {
	line    string
	fields  []string // "Name: value", as they came
	framing string   // how the body's end was told: "", length, chunked or close
	body    string   // without chunk lines
	trailer []string
}

// The values of message.framing.
const (
	byLength = "length"
	byChunks = "chunked"
	byClose  = "close"
)

// value returns the first value of a field.
func (m *message) value(name string) string {
	for _, f := range m.fields {
		if n, v, _ := strings.Cut(f, ":"); strings.EqualFold(n, name) {
			return strings.Trim(v, " \t")
		}
	}
	return ""
}

// status is an answer's status, 0 when the line is none.
func (m *message) status() int {
	var major, minor, status int
	if _, err := fmt.Sscanf(m.line, "HTTP/%d.%d %d", &major, &minor, &status); err != nil {
		return 0
	}
	return status
}

// readLines reads lines up to the empty one.
func readLines(br *bufio.Reader) ([]string, error) {
	var lines []string
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return lines, err
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok {
			return lines, fmt.Errorf("a line ends without CR: %q", line)
		}
		if text == "" {
			return lines, nil
		}
		lines = append(lines, text)
	}
}

// readMessage reads one message: a request when answerTo is "", else the answer
// to a request with that method. io.EOF means that there is none.
func readMessage(br *bufio.Reader, answerTo string) (*message, error) {
	m, err := readMessageHead(br)
	if err != nil {
		return nil, err
	}
	return m, m.readBody(br, answerTo)
}

// readMessageHead reads a head alone.
func readMessageHead(br *bufio.Reader) (*message, error) {
	if _, err := br.Peek(1); err != nil {
		return nil, err
	}
	lines, err := readLines(br)
	if err != nil || len(lines) == 0 {
		return nil, errors.Join(fmt.Errorf("half a head %q", lines), err, io.ErrUnexpectedEOF)
	}
	return &message{line: lines[0], fields: lines[1:]}, nil
}

// readBody reads what belongs to a head.
func (m *message) readBody(br *bufio.Reader, answerTo string) (err error) {
	te, length := m.value("Transfer-Encoding"), m.value("Content-Length")
	switch status := m.status(); {
	case answerTo != "" && (answerTo == "HEAD" || status < 200 || status == 204 || status == 304):
	case te != "":
		m.framing = byChunks
		m.body, m.trailer, err = readChunks(br)
	case length != "":
		m.framing = byLength
		var n int64
		if n, err = strconv.ParseInt(length, 10, 64); err == nil {
			m.body, err = readExactly(br, n)
		}
	case answerTo != "":
		m.framing = byClose
		var all []byte
		all, err = io.ReadAll(br)
		m.body = string(all)
	}
	return err
}

func readExactly(br *bufio.Reader, n int64) (string, error) {
	var b strings.Builder
	got, err := io.CopyN(&b, br, n)
	if got < n && (err == nil || errors.Is(err, io.EOF)) {
		err = io.ErrUnexpectedEOF
	}
	return b.String(), err
}

// readChunks reads a chunked body and its trailer.
func readChunks(br *bufio.Reader) (body string, trailer []string, err error) {
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return b.String(), nil, io.ErrUnexpectedEOF
		}
		size, _, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ";")
		n, err := strconv.ParseUint(strings.TrimRight(size, " \t"), 16, 31)
		if err != nil {
			return b.String(), nil, fmt.Errorf("chunk line %q", line)
		}
		if n == 0 {
			trailer, err = readLines(br)
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return b.String(), trailer, err
		}
		data, err := readExactly(br, int64(n)+2)
		if err != nil {
			return b.String() + data, nil, err
		}
		if !strings.HasSuffix(data, "\r\n") {
			return b.String(), nil, fmt.Errorf("a chunk of %d bytes ends with %q", n, data[n:])
		}
		b.WriteString(data[:n])
	}
}

// viaNetHTTP makes a connection net/http's for the rest of its life, by asking
// for one of the sidecar's own paths.
func viaNetHTTP(t testing.TB, c *rawClient) *rawClient {
	t.Helper()
	if head, body := c.ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "ok\n" {
		t.Fatalf("got %q %q", head, body)
	}
	return c
}

// dialBy opens a connection that goes the given way in: fast or net/http.
func dialBy(t testing.TB, s *running, way string) *rawClient {
	t.Helper()
	if way == "fast" {
		return dial(t, s)
	}
	return viaNetHTTP(t, dial(t, s))
}

// bothWays are the two ways in.
var bothWays = [...]string{"fast", "net/http"}
