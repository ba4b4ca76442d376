package sidecar

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
)

// generator makes requests and answers that are legal, and as odd as the law
// allows.
type generator struct{ *rand.Rand }

// exchanged is a request, and how a node answers it.
type exchanged struct {
	id      string
	method  string
	request string
	old     bool // over HTTP/1.0
	ends    bool // the client has it end the connection
	odd     bool // nothing that net/http, whose client speaks HTTP/2, can say
	answer  string
	closes  bool // the node closes behind its answer
}

// conversation makes the exchanges of one connection. Only the last may end it.
func (g generator) conversation(id int) []*exchanged {
	n := 1 + g.IntN(5)
	out := make([]*exchanged, n)
	for i := range out {
		out[i] = g.exchange(fmt.Sprintf("%d.%d", id, i), i == n-1)
	}
	return out
}

func (g generator) exchange(id string, last bool) *exchanged {
	x := &exchanged{id: id, method: pick(g, "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get", "M-SEARCH", "BREW!", "x")}
	target := g.target()
	_, err := url.ParseRequestURI(target)
	x.odd = err != nil // it insists on what net/url takes
	fields := g.fields("X-Req", "x-req", "X-REQ")
	version := "HTTP/1.1"
	switch {
	case last && g.IntN(6) == 0:
		x.old, x.ends, version = true, true, "HTTP/1.0"
	case last && g.IntN(4) == 0:
		x.ends = true
		fields = g.insert(fields, pick(g, "Connection: close", "connection: Close", "CONNECTION: X-Hop ,close", "Connection:close,"))
	}
	if g.IntN(5) == 0 && !x.old { // over HTTP/1.0 net/http may keep the connection
		fields = g.insert(fields, pick(g, "Connection: keep-alive, X-Hop", "Connection: x-hop", "Connection: ,,", "Keep-Alive: timeout=5", "Te: trailers", "Proxy-Connection: close", "Upgrade: h2c"))
		fields = g.insert(fields, "X-Hop: 1")
	}
	body := ""
	if g.IntN(2) == 0 {
		framed, text := g.body("X-Sum", !x.old)
		fields, body = g.insert(fields, framed), text
	}
	fields = g.insert(fields, pick(g, "Host: h.example", "host:h", "HOST: [::1]:8081", "Host: h:80", "Host: "))
	fields = g.insert(fields, "X-Case: "+id)
	// It adds a Cache-Control of its own.
	x.odd = x.odd || slices.ContainsFunc(fields, func(f string) bool {
		name, value, _ := strings.Cut(f, ":")
		return name == "Pragma" && strings.TrimSpace(value) == "no-cache"
	})
	x.request = x.method + " " + target + " " + version + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n" + body
	if g.IntN(20) == 0 {
		x.request, x.odd = "\r\n"+x.request, true
	}
	g.answer(x, last)
	return x
}

// target is one that belongs to the service foo.
func (g generator) target() string {
	var b strings.Builder
	b.WriteString(pick(g, "/foo", "/foo", "/foo", "/foo", "//foo", "/%66oo", "/f%6Fo"))
	for range g.IntN(6) {
		b.WriteString(pick(g, "/", "/", "/a", "/.", "/..", "//", "/%2F", "/%2f..", "/%23x", "/%00", "/%0d%0aX:y", "/%25", "/a;b=c", "/a:b@c", "/{a}|\"<b>^`", "/\xc3\xa9", "/\xff\x80", "/a+b%20c", "/*", "/foo", "/~", "/\\"))
	}
	if g.IntN(20) == 0 {
		b.WriteString(pick(g, "/%zz", "/%"))
	}
	if g.IntN(60) == 0 {
		b.WriteString("/" + strings.Repeat("p", g.IntN(20<<10)))
	}
	if g.IntN(2) == 0 {
		b.WriteByte('?')
		for range g.IntN(4) {
			b.WriteString(pick(g, "a=b", "&", "=", "?", "/", "%2F", "%zz", "#", "..", ";", "\xfe", "x=http://o/a?b", "+"))
		}
	}
	return b.String()
}

// fields makes header fields, one of them often repeated in any of its
// spellings.
func (g generator) fields(spellings ...string) []string {
	var out []string
	for range g.IntN(7) {
		often := pick(g, spellings...)
		n := pick(g, often, often, often, "Cookie", "A", "b", "X-Empty", "!#$%&'*+-.^_`|~", "x_under", "eTaG", "Accept-Encoding", "Pragma", "Cache-Control", "User-Agent", "Date", "Content-Type", "Content-Encoding", "Range", "Warning", "Authorization", "Server")
		out = append(out, n+pick(g, ":", ": ", ":\t ", ":  ")+g.value()+pick(g, "", "", " ", "\t"))
	}
	switch g.IntN(100) {
	case 0:
		out = append(out, "X-Long: "+strings.Repeat("v", 30<<10))
	case 1:
		for i := range 200 {
			out = append(out, fmt.Sprintf("X-%d: %d", i%50, i))
		}
	}
	return out
}

func (g generator) value() string {
	return pick(g, "", "1", "no-cache", "gzip;q=0, *", "a, b,,c", "\"q\\\"\"", "\xff\xe9", "in\tside", "a: b", "W/\"x\"", "text/html; charset=x", "bytes=0-", "chunked", "close", "100", "=?", "a  b", strings.Repeat("z", g.IntN(300)))
}

// insert puts a field somewhere.
func (g generator) insert(fields []string, field string) []string {
	i := g.IntN(len(fields) + 1)
	return append(fields[:i:i], append([]string{field}, fields[i:]...)...)
}

// body makes a body and the field that frames it.
func (g generator) body(trailer string, chunks bool) (field, body string) {
	size := pick(g, 0, 1, 2, g.IntN(100), g.IntN(100), g.IntN(5000), g.IntN(100_000))
	text := strings.Repeat(pick(g, "x", "0\r\n\r\n", "\x00\xff", "GET / HTTP/1.1\r\n\r\n", "hello"), size)[:size]
	if !chunks || g.IntN(2) == 0 {
		return pick(g, "Content-Length: ", "content-length:", "CONTENT-LENGTH: ") + fmt.Sprint(size), text
	}
	var b strings.Builder
	for text != "" {
		n := min(len(text), 1+pick(g, 0, g.IntN(10), g.IntN(20_000)))
		b.WriteString(fmt.Sprintf(pick(g, "%x", "%X", "00%x"), n) + pick(g, "", "", ";a", ";a=b", ";x=\"y z\";q", ";\xff") + "\r\n" + text[:n] + "\r\n")
		text = text[n:]
	}
	b.WriteString(pick(g, "0", "0", "000", "0;last") + "\r\n")
	trailer = pick(g, trailer, strings.ToLower(trailer))
	for range g.IntN(3) {
		b.WriteString(pick(g, trailer, "X-Other") + ": " + g.value() + "\r\n")
	}
	return pick(g, "Transfer-Encoding: chunked", "transfer-encoding:Chunked", "TRANSFER-ENCODING: CHUNKED "), b.String() + "\r\n"
}

// answer makes the node's answer.
func (g generator) answer(x *exchanged, last bool) {
	var b strings.Builder
	for range pick(g, 0, 0, 0, 0, 1, 2) {
		b.WriteString(pick(g, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n"))
	}
	version := "HTTP/1.1"
	if g.IntN(8) == 0 {
		version = "HTTP/1.0"
	}
	status := pick(g, 200, 200, 200, 201, 204, 206, 299, 302, 304, 400, 404, 418, 500, 503, 599, 799)
	// net/http loses the order of different spellings of one name.
	fields := g.fields(pick(g, "Set-Cookie", "set-cookie", "SET-COOKIE"))
	body, framed := "", ""
	switch {
	case status == 204:
	case status == 304 || x.method == "HEAD":
		framed = pick(g, "", "Content-Length: 12345", "content-length: 0")
	case last && g.IntN(3) == 0: // until the end of the connection
		_, body = g.body("", false)
		x.closes = true
	default:
		framed, body = g.body("X-Tail", version == "HTTP/1.1")
	}
	if framed != "" {
		fields = g.insert(fields, framed)
	}
	switch {
	case version == "HTTP/1.0" && !last:
		fields = g.insert(fields, "Connection: keep-alive")
	case version == "HTTP/1.0":
		x.closes = true
	case last && !x.closes && g.IntN(4) == 0:
		x.closes = true
		fields = g.insert(fields, "Connection: close")
	}
	reason := pick(g, "OK", "", "Not At All", "\xe9 tab\there")
	b.WriteString(fmt.Sprintf("%s %d %s\r\n", version, status, reason) + strings.Join(append(fields, ""), "\r\n") + "\r\n" + body)
	x.answer = b.String()
}

func pick[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }
