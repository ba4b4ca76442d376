package http1

import (
	"strconv"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// ParseRequest reads a request's head: text is all of it, with the empty line
// at its end. r's strings are parts of text. The error is an *[Error], or
// [ErrHeadTooLarge].
func ParseRequest(text string, r *Request) error {
	line, rest, err := cutLine(text)
	if err != nil {
		return err
	}
	method, line, ok1 := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(line, " ")
	*r = Request{Head: Head{Header: r.Header[:0]}, Method: method, Target: target}
	switch {
	case !ok1 || !ok2 || !IsToken(method):
		return malformed("malformed request line")
	case !IsTarget(target):
		return malformed("malformed request target")
	}
	if r.Minor, err = minor(version); err != nil {
		return err
	}
	f := framing{request: true}
	if r.Header, err = f.fields(rest, r.Header); err != nil {
		return err
	}
	r.Host = f.host
	return r.settle(&f)
}

// settle draws the conclusions from the fields of a request.
func (r *Request) settle(f *framing) error {
	switch {
	case f.hosts > 1 || f.hosts == 0 && r.Minor == 1:
		return malformed("expected one Host field, got %d", f.hosts)
	case !IsHost(r.Host):
		return malformed("malformed Host field")
	case f.chunked && r.Minor == 0:
		return malformed("Transfer-Encoding in an HTTP/1.0 request")
	case f.chunked:
		r.Length = Chunked
	case f.lengths > 0:
		r.Length = f.length
	}
	r.Close = f.close || r.Minor == 0
	if f.upgrade && r.Minor == 1 {
		r.Upgrade = f.protocols
	}
	r.Continue = f.expect && r.Minor == 1
	return nil
}

// ParseResponse reads an answer's head, like [ParseRequest]; method is that of
// the request it answers, which decides whether there is a body.
func ParseResponse(text, method string, r *Response) error {
	line, rest, err := cutLine(text)
	if err != nil {
		return err
	}
	version, line, _ := strings.Cut(line, " ")
	status, reason, _ := strings.Cut(line, " ")
	*r = Response{Head: Head{Header: r.Header[:0]}, Reason: reason}
	if r.Minor, err = minor(version); err != nil {
		return err
	}
	if r.Status, err = strconv.Atoi(status); err != nil || len(status) != 3 || r.Status < 100 || !IsValue(reason) {
		return malformed("malformed status line")
	}
	var f framing
	if r.Header, err = f.fields(rest, r.Header); err != nil {
		return err
	}
	if err := r.setBody(&f, method); err != nil {
		return err
	}
	r.Close = f.close || r.Minor == 0 && !f.keep || r.Length == UntilClose
	if f.upgrade || r.Status == 101 {
		r.Upgrade = f.protocols
	}
	return nil
}

// setBody draws the conclusions on the body (RFC 9112 section 6.3).
func (r *Response) setBody(f *framing, method string) error {
	bodiless := r.Status < 200 || r.Status == 204 || r.Status == 304
	switch {
	case bodiless && f.chunked && r.Status != 304:
		return malformed("Transfer-Encoding in an answer with status %d", r.Status)
	case bodiless, method == "HEAD", method == "CONNECT" && r.Status < 300:
	case f.chunked && r.Minor == 0:
		return malformed("Transfer-Encoding in an HTTP/1.0 answer")
	case f.chunked:
		r.Length = Chunked
	case f.lengths > 0:
		r.Length = f.length
	default:
		r.Length = UntilClose
	}
	return nil
}

// cutLine cuts the first line off. Lines end with CR LF alone: a bare LF would
// be the end of a line to some and not to others.
func cutLine(text string) (line, rest string, err error) {
	i := strings.IndexByte(text, '\n')
	if i < 1 || text[i-1] != '\r' {
		return "", "", malformed("a line does not end with CR LF")
	}
	return text[:i-1], text[i+1:], nil
}

func minor(version string) (int, error) {
	switch version {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	return 0, malformed("expected HTTP/1.1 or HTTP/1.0")
}

// framing collects what the fields say about the message's end and its
// connection.
type framing struct {
	request   bool // Host is taken out of the fields
	hosts     int
	host      string
	lengths   int
	length    int64
	chunked   bool
	close     bool
	keep      bool
	upgrade   bool
	expect    bool
	protocols string
}

// fields appends the fields of the lines up to the empty one to h.
func (f *framing) fields(text string, h httpmsg.Header) (httpmsg.Header, error) {
	for n := 0; ; n++ {
		line, rest, err := cutLine(text)
		if err != nil {
			return h, err
		}
		if line == "" {
			if rest != "" {
				return h, malformed("bytes behind the head")
			}
			break
		}
		if n == MaxFields {
			return h, ErrHeadTooLarge
		}
		field, err := parseField(line)
		if err != nil {
			return h, err
		}
		if f.request && fold(field.Name, "host") {
			f.hosts++
			f.host = field.Value
		} else {
			h = append(h, field)
			if err := f.note(field); err != nil {
				return h, err
			}
		}
		text = rest
	}
	if f.chunked && f.lengths > 0 {
		return h, malformed("both Content-Length and Transfer-Encoding")
	}
	return h, nil
}

// parseField reads a field line. A line that begins with white space (a folded
// one) or has some before the colon is refused with its name.
func parseField(line string) (httpmsg.Field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !IsToken(name) {
		return httpmsg.Field{}, malformed("malformed header field")
	}
	if value = trim(value); !IsValue(value) {
		return httpmsg.Field{}, malformed("control characters in header field %s", name)
	}
	return httpmsg.Field{Name: name, Value: value}, nil
}

// note takes in a field that frames the message.
func (f *framing) note(field httpmsg.Field) error {
	switch len(field.Name) {
	case len("expect"):
		if fold(field.Name, "expect") && fold(field.Value, "100-continue") {
			f.expect = true
		}
	case len("upgrade"):
		if fold(field.Name, "upgrade") {
			f.protocols = field.Value
		}
	case len("connection"):
		if fold(field.Name, "connection") {
			f.connection(field.Value)
		}
	case len("content-length"):
		if !fold(field.Name, "content-length") {
			return nil
		}
		if f.lengths++; f.lengths > 1 {
			return malformed("more than one Content-Length")
		}
		return f.setLength(field.Value)
	case len("transfer-encoding"):
		if !fold(field.Name, "transfer-encoding") {
			return nil
		}
		if f.chunked || !fold(field.Value, "chunked") {
			return malformed("expected Transfer-Encoding: chunked, once, got %q", field.Value)
		}
		f.chunked = true
	}
	return nil
}

// setLength reads digits and nothing else: no sign, no list.
func (f *framing) setLength(text string) error {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return malformed("malformed Content-Length")
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return malformed("malformed Content-Length")
	}
	f.length = n
	return nil
}

// connection reads a list of connection options (RFC 9110 section 7.6.1).
func (f *framing) connection(list string) {
	for list != "" {
		var option string
		option, list, _ = strings.Cut(list, ",")
		switch option = trim(option); {
		case fold(option, "close"):
			f.close = true
		case fold(option, "keep-alive"):
			f.keep = true
		case fold(option, "upgrade"):
			f.upgrade = true
		}
	}
}

// IsHost refuses what no host and port are made of (RFC 3986 section 3.2.2),
// so that nobody reads two hosts into one field.
func IsHost(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 || !token[c] && strings.IndexByte(":[]()=;,@%", c) < 0 {
			return false
		}
	}
	return strings.IndexByte(s, '@') < 0 && strings.IndexByte(s, ',') < 0
}
