package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// clientHTTP2 speaks HTTP/2 without TLS and adds nothing of its own.
func clientHTTP2(t *testing.T) *http.Transport {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// TestDifferentialHTTP2 compares what a node sees straight and over HTTP/2, and
// what the client gets, in meaning: HTTP/2 has no order and no case of names,
// and frames bodies in its own way.
func TestDifferentialHTTP2(t *testing.T) {
	t.Parallel()
	s0 := seed(t)
	t.Logf("%s=%d", seedVar, s0)
	node := &reference{}
	n := startNode(t, node.serve)
	s := proxying(t, n, noRetries)
	client := clientHTTP2(t)
	requests := 0
	for i := range 600 {
		g := generator{rand.New(rand.NewPCG(s0, uint64(i)))}
		x := g.exchange(fmt.Sprint(i), true)
		m, err := readMessage(bufio.NewReader(strings.NewReader(x.request)), "")
		if x.odd || x.old || err != nil || m.value("Host") == "" {
			continue
		}
		want := converse(t, g, node, []*exchanged{x}, dialAddr(t, n.l.Addr().String()))[0]
		node.agree([]*exchanged{x})
		got, err := askHTTP2(client, s, m)
		views, strange := node.saw([]*exchanged{x})
		if err != nil || len(views[0]) != 1 || len(strange) > 0 {
			t.Fatalf("%d: %v, %v, the node got %q\n%s", i, err, views, strange, transcript([]*exchanged{x}))
		}
		requests++
		if a, b := meaning(want.node[0], true), meaning(views[0][0], true); a != b {
			t.Fatalf("%d: the node saw\n%s\n, not\n%s\n%s", i, b, a, transcript([]*exchanged{x}))
		}
		if a, b := meaning(want.client[len(want.client)-1], false), meaning(got, false); a != b {
			t.Fatalf("%d: the client saw\n%s\n, not\n%s\n%s", i, b, a, transcript([]*exchanged{x}))
		}
	}
	t.Logf("%d requests", requests)
}

// askHTTP2 sends a request over HTTP/2 and returns the answer as a message.
func askHTTP2(client *http.Transport, s *running, m *message) (*message, error) {
	words := strings.SplitN(m.line, " ", 3)
	host := strings.TrimPrefix(s.url, "http://")
	r := &http.Request{
		Method: words[0], URL: &url.URL{Scheme: "http", Host: host, Opaque: "//" + m.value("Host") + words[1]}, Host: m.value("Host"),
		Header: header(end2end(m, "h2", "Host", "Content-Length")), Body: io.NopCloser(strings.NewReader(m.body)),
	}
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = nil // else it would be made up
	}
	switch m.framing {
	case byChunks:
		r.ContentLength, r.Trailer = -1, header(m.trailer)
	default:
		if r.ContentLength = int64(len(m.body)); m.body == "" {
			r.Body = nil
		}
	}
	resp, err := client.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body []byte
	if resp.StatusCode != http.StatusNotModified { // whose Content-Length net/http's client takes for that of a body
		body, err = io.ReadAll(resp.Body)
	}
	return &message{line: "HTTP/2.0 " + resp.Status, fields: lines(resp.Header), body: string(body), trailer: lines(resp.Trailer)}, err
}

// header makes net/http's form of fields, lines the other way round.
func header(fields []string) http.Header {
	out := http.Header{}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		out.Add(name, strings.TrimSpace(value))
	}
	return out
}

func lines(h http.Header) (out []string) {
	for name, values := range h {
		for _, value := range values {
			out = append(out, name+": "+value)
		}
	}
	return out
}

// meaning is what HTTP/2 and HTTP/1.1 have in common of a message.
func meaning(m *message, request bool) string {
	line := fmt.Sprint(m.status())
	if request {
		line, _, _ = cutLast(m.line, " ")
	}
	fields := end2end(m, "h2", "Host", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Content-Length", "Trailer", "User-Agent")
	// Cookies go crumb by crumb, and are put together again (RFC 9113 section
	// 8.2.3): white space may change.
	cookies := []string{}
	fields = slices.DeleteFunc(fields, func(f string) bool {
		value, ok := strings.CutPrefix(f, "cookie: ")
		if ok {
			cookies = append(cookies, value)
		}
		return ok
	})
	host := m.value("Host")
	if !request {
		host = ""
	}
	return fmt.Sprintf("%s\nhost %s\n%s\ncookies %q\ntrailer %q\n%s", line, host, strings.Join(fields, "\n"), strings.Trim(strings.ReplaceAll(strings.Join(cookies, ";"), " ", ""), ";"), ordered(m.trailer, "h2"), digest(m.body))
}

// Half an answer is none over HTTP/2 either.
func TestAnswersThatBreakOffHTTP2(t *testing.T) {
	t.Parallel()
	var answer script
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		if m, err := readMessage(br, ""); m == nil || err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer.get())
	})
	s := proxying(t, n, nil)
	client := clientHTTP2(t)
	for name, text := range badEnds {
		answer.set(text)
		r, err := http.NewRequest("GET", s.url+"/foo/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.RoundTrip(r)
		if err != nil {
			continue // broken from the start is fine
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != 502 {
			t.Errorf("%s passed for %d and %d bytes", name, resp.StatusCode, len(b))
		}
	}
	for name, text := range badAnswers {
		answer.set(text)
		r, err := http.NewRequest("GET", s.url+"/foo/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.RoundTrip(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 502 || strings.Contains(string(b), "evil-body") {
			t.Errorf("%s became %d %.100q, %v", name, resp.StatusCode, b, err)
		}
	}
}
