package sidecar

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// seedVar, when set, repeats a run of the differential test.
const seedVar = "MICRO_TEST_SEED"

func seed(t *testing.T) uint64 {
	text := os.Getenv(seedVar)
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedVar, err)
	}
	return n
}

// reference is a node that answers what was agreed for each request, and
// remembers how the request looked on the wire.
type reference struct {
	mu      sync.Mutex
	answers map[string]*exchanged // by X-Case
	got     map[string][]*message
	strange []string
}

func (n *reference) serve(conn *net.TCPConn, br *bufio.Reader) {
	for n.serveOne(conn, br) {
	}
}

func (n *reference) serveOne(conn *net.TCPConn, br *bufio.Reader) bool {
	for b, err := br.Peek(2); err == nil && string(b) == "\r\n"; b, err = br.Peek(2) {
		_, _ = br.Discard(2) // an empty line ahead of a request
	}
	m, err := readMessageHead(br)
	if err != nil {
		return false
	}
	if m.value("Expect") != "" {
		_, _ = conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	err = m.readBody(br, "")
	n.mu.Lock()
	x := n.answers[m.value("X-Case")]
	if x == nil || err != nil {
		n.strange = append(n.strange, fmt.Sprintf("%v: %+v", err, m))
		n.mu.Unlock()
		return false
	}
	n.got[x.id] = append(n.got[x.id], m)
	n.mu.Unlock()
	// In one piece, in two, or the head by itself.
	cut := len(x.answer)
	switch len(x.answer) % 3 {
	case 0:
		cut /= 2
	case 1:
		cut = strings.Index(x.answer, "\r\n\r\n") + 4
	}
	for _, piece := range []string{x.answer[:cut], x.answer[cut:]} {
		if _, err := conn.Write([]byte(piece)); err != nil {
			return false
		}
	}
	return !x.closes && !strings.HasSuffix(m.line, "/1.0") && !slices.ContainsFunc(m.fields, asksToClose)
}

func asksToClose(field string) bool {
	name, options, _ := strings.Cut(strings.ToLower(field), ":")
	return name == "connection" && strings.Contains(options, "close")
}

// agree tells the node how the exchanges of a conversation are answered.
func (n *reference) agree(talk []*exchanged) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers, n.got, n.strange = map[string]*exchanged{}, map[string][]*message{}, nil
	for _, x := range talk {
		n.answers[x.id] = x
	}
}

// saw returns what the node saw of each exchange.
func (n *reference) saw(talk []*exchanged) (out [][]*message, strange []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range talk {
		out = append(out, n.got[x.id])
	}
	return out, n.strange
}

// TestDifferential has the same conversations straight with a node and through
// the sidecar, and compares what both ends saw: byte for byte, but for the order
// and the case of the names in answers that come by net/http's way.
func TestDifferential(t *testing.T) {
	t.Parallel()
	s0 := seed(t)
	t.Logf("%s=%d", seedVar, s0)
	node := &reference{}
	n := startNode(t, node.serve)
	s := proxying(t, n, noRetries)
	requests := 0
	for i := range 400 {
		g := generator{rand.New(rand.NewPCG(s0, uint64(i)))}
		talk := g.conversation(i)
		want := converse(t, g, node, talk, dialAddr(t, n.l.Addr().String()))
		for _, way := range []string{"fast", "net/http", "expect"} {
			got := converse(t, g, node, through(g, way, talk), dialWay(t, s, way))
			requests += len(talk)
			if diff := compare(want, got, way); diff != "" {
				t.Fatalf("conversation %d, %s: %s\nrequests and answers:\n%s", i, way, diff, transcript(talk))
			}
		}
	}
	t.Logf("%d requests", requests)
}

// through gives the first request of a conversation an expectation, which makes
// the connection net/http's.
func through(g generator, way string, talk []*exchanged) []*exchanged {
	if way != "expect" {
		return talk
	}
	first := *talk[0]
	line, rest, _ := strings.Cut(strings.TrimPrefix(first.request, "\r\n"), "\r\n")
	first.request = line + "\r\nExpect: 100-continue\r\n" + rest
	return append([]*exchanged{&first}, talk[1:]...)
}

func dialWay(t *testing.T, s *running, way string) *rawClient {
	if way == "net/http" {
		return dialBy(t, s, way)
	}
	return dial(t, s)
}

func dialAddr(t *testing.T, addr string) *rawClient {
	return dial(t, &running{url: "http://" + addr})
}

// seen is what both ends saw of one exchange.
type seen struct {
	x      *exchanged
	client []*message // 1xx among them
	node   []*message
	err    error
}

// converse sends all requests of a conversation, cut up anyhow, and reads the
// answers.
func converse(t *testing.T, g generator, node *reference, talk []*exchanged, c *rawClient) []seen {
	t.Helper()
	defer c.conn.Close()
	node.agree(talk)
	var all strings.Builder
	for _, x := range talk {
		all.WriteString(x.request)
	}
	text := all.String()
	sizes := []int{len(text)}
	if g.IntN(3) == 0 {
		sizes = []int{1, g.IntN(50), 1 + g.IntN(len(text))}
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for i, rest := 0, text; rest != ""; i++ {
			k := min(max(sizes[i%len(sizes)], 1), len(rest))
			if i > 40 {
				k = len(rest)
			}
			if _, err := c.conn.Write([]byte(rest[:k])); err != nil {
				return // what is missing will be seen
			}
			rest = rest[k:]
		}
	})
	var out []seen
	for _, x := range talk {
		one := seen{x: x}
		for {
			m, err := readMessage(c.br, x.method)
			if one.err = err; err != nil {
				break
			}
			if one.client = append(one.client, m); m.status() >= 200 {
				break
			}
		}
		out = append(out, one)
		if one.err != nil {
			break
		}
	}
	if last := len(talk) - 1; talk[last].ends && len(out) == len(talk) && out[last].err == nil {
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("behind the last answer: %.100q, %v", rest, err)
		}
	}
	c.conn.Close()
	sending.Wait()
	views, strange := node.saw(talk)
	for i := range out {
		out[i].node = views[i]
	}
	if len(strange) > 0 {
		t.Errorf("the node got what nobody sent: %.300q", strange)
	}
	return out
}

// compare returns the first difference.
func compare(want, got []seen, way string) string {
	if len(want) != len(got) {
		i := min(len(want), len(got)) - 2
		return fmt.Sprintf("%d answers straight, %d through the sidecar, the last with %v, the last but one\n%.1000q", len(want), len(got), got[len(got)-1].err, answerView(got[max(i, 0)], way))
	}
	for i := range want {
		a, b := want[i], got[i]
		if a.err != nil || b.err != nil {
			return fmt.Sprintf("exchange %d: straight %v, through the sidecar %v", i, a.err, b.err)
		}
		if len(a.node) != 1 || len(b.node) != 1 {
			return fmt.Sprintf("exchange %d: the node saw it %d times straight, %d through the sidecar, which said\n%.1000q", i, len(a.node), len(b.node), answerView(b, way))
		}
		if x, y := requestView(a.node[0]), requestView(b.node[0]); x != y {
			return fmt.Sprintf("exchange %d: the node saw\n%.1000q\n, not\n%.1000q", i, y, x)
		}
		if x, y := answerView(a, way), answerView(b, way); x != y {
			return fmt.Sprintf("exchange %d: the client saw\n%.1000q\n, not\n%.1000q", i, y, x)
		}
		if final := b.client[len(b.client)-1]; i < len(want)-1 && final.value("Connection") == "close" {
			return fmt.Sprintf("exchange %d: the sidecar ends the connection", i)
		}
	}
	return ""
}

// requestView is all of a request that must be the same.
func requestView(m *message) string {
	const way = "fast"                 // both are
	line, _, _ := cutLast(m.line, " ") // each side speaks its own version
	host := m.value("Host")
	fields := end2end(m, way, "Host", "Expect", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
	return fmt.Sprintf("%s\nHost: %s\n%s\n%s\ntrailer %q\n%s", line, host, strings.Join(fields, "\n"), m.framing, ordered(m.trailer, way), digest(m.body))
}

// answerView is all of an answer that must be the same. An HTTP/1.0 client gets
// no 1xx and no trailers; a body that ends with the node's connection need not
// end with the client's.
func answerView(s seen, way string) string {
	var b strings.Builder
	for _, m := range s.client {
		status := m.status()
		if status < 200 && (s.x.old || status == 100) {
			continue
		}
		_, line, _ := strings.Cut(m.line, " ")
		if way != "fast" {
			line = strconv.Itoa(status)
		}
		fields := end2end(m, way)
		if status < 200 || m.framing == byClose || m.framing == byChunks {
			fields = slices.DeleteFunc(fields, func(f string) bool { return strings.HasPrefix(strings.ToLower(f), "content-length:") })
		}
		fmt.Fprintf(&b, "%s\n%s\n%s\n", strings.TrimSpace(line), strings.Join(fields, "\n"), digest(m.body))
		if !s.x.old {
			fmt.Fprintf(&b, "trailer %q\n", ordered(m.trailer, way))
		}
	}
	return b.String()
}

// digest tells bodies apart in few words.
func digest(body string) string {
	return fmt.Sprintf("%d bytes, %.8x, %.40q", len(body), sha256.Sum256([]byte(body)), body)
}

// end2end returns the fields of a message that are not for one hop alone.
func end2end(m *message, way string, but ...string) []string {
	but = append(but, "Connection", "Proxy-Connection", "Keep-Alive", "TE", "Transfer-Encoding", "Upgrade")
	for _, f := range m.fields {
		if name, options, _ := strings.Cut(f, ":"); strings.EqualFold(name, "Connection") {
			for option := range strings.SplitSeq(options, ",") {
				if option = strings.TrimSpace(option); !strings.EqualFold(option, "close") {
					but = append(but, option)
				}
			}
		}
	}
	var out []string
	for _, f := range m.fields {
		name, _, _ := strings.Cut(f, ":")
		if !slices.ContainsFunc(but, func(b string) bool { return strings.EqualFold(b, name) }) {
			out = append(out, f)
		}
	}
	return ordered(out, way)
}

// ordered brings the white space around values into one form and, for the way
// through net/http, the names into one case and into alphabetical order.
func ordered(fields []string, way string) []string {
	var out []string
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		if way != "fast" {
			name = strings.ToLower(name)
		}
		out = append(out, name+": "+strings.Trim(value, " \t"))
	}
	if way != "fast" {
		slices.SortStableFunc(out, func(a, b string) int {
			x, _, _ := strings.Cut(a, ":")
			y, _, _ := strings.Cut(b, ":")
			return cmp.Compare(x, y)
		})
	}
	return out
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func transcript(talk []*exchanged) string {
	var b strings.Builder
	for _, x := range talk {
		fmt.Fprintf(&b, "%.400q\n  %.400q\n", x.request, x.answer)
	}
	return b.String()
}
