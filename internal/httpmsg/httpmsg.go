// Package httpmsg is an HTTP message as the data plane sees it: header fields
// in their order and spelling, the request target byte for byte, a body to
// stream. It does not depend on who parsed the message, net/http or a codec of
// our own, and it does no I/O itself.
package httpmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Field is one header field, spelled as it came.
type Field struct{ Name, Value string }

// Header is a list of fields in the order they came. Names are compared
// without regard to case (RFC 9110 section 5.1). The zero value is empty.
type Header []Field

// sameName compares names as [Header] does.
func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// Get returns the first value of name, or "".
func (h Header) Get(name string) string {
	for i := range h {
		if sameName(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

// Has reports whether a field of that name is there.
func (h Header) Has(name string) bool {
	for i := range h {
		if sameName(h[i].Name, name) {
			return true
		}
	}
	return false
}

// Add appends a field.
func (h *Header) Add(name, value string) { *h = append(*h, Field{name, value}) }

// Set replaces all fields of name by one, in the first one's place, or appends it.
func (h *Header) Set(name, value string) {
	out, done := (*h)[:0], false
	for _, f := range *h {
		switch {
		case !sameName(f.Name, name):
			out = append(out, f)
		case !done:
			out, done = append(out, Field{f.Name, value}), true
		}
	}
	if !done {
		out = append(out, Field{name, value})
	}
	*h = out
}

// Del removes all fields of name.
func (h *Header) Del(name string) {
	out := (*h)[:0]
	for _, f := range *h {
		if !sameName(f.Name, name) {
			out = append(out, f)
		}
	}
	*h = out
}

// HasToken reports whether the comma-separated list in the fields of name
// holds token, without regard to case.
func (h Header) HasToken(name, token string) bool {
	for _, f := range h {
		if !sameName(f.Name, name) {
			continue
		}
		for part := range strings.SplitSeq(f.Value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// HasPrefix reports whether the first value of name begins with prefix, without
// regard to case.
func (h Header) HasPrefix(name, prefix string) bool {
	value := h.Get(name)
	return len(value) >= len(prefix) && strings.EqualFold(value[:len(prefix)], prefix)
}

// Clone returns a copy that shares nothing with h.
func (h Header) Clone() Header {
	if h == nil {
		return nil
	}
	return append(make(Header, 0, len(h)+4), h...)
}

// Date is the field that an answer of the sidecar's own has (RFC 9110 section
// 6.6.1). One that a node made is passed on with the node's, or without.
func Date() Field { return Field{"Date", time.Now().UTC().Format(http.TimeFormat)} }

// Request is one request. It belongs to the handler it is given to.
type Request struct {
	Method string
	// Target is the request target in origin form ("/a%2Fb?x"), byte for byte.
	Target string
	// Host is the Host field's value; it is not in Header.
	Host   string
	Header Header
	// Body is never nil. Length is its size in bytes, -1 when it is not known
	// beforehand, 0 when there is none.
	Body   io.Reader
	Length int64
	// Trailer returns the trailer fields once Body has answered io.EOF; it may be nil.
	Trailer func() Header
	// Trailers says that the client takes trailer fields with the answer: it
	// sent "TE: trailers", a field that is not in Header when it goes on.
	Trailers bool
	// RemoteAddr is the client's "host:port", or [UnixClient]; TLS and HTTP2
	// tell how it came.
	RemoteAddr string
	TLS        bool
	HTTP2      bool
	// Loopback tells that the listener it came in by is bound to loopback.
	Loopback bool
	// Account is where handlers note what became of the request; nil when nobody
	// wants to know.
	Account *Account
}

// Account is what an access log says about a request that only its handler
// knows: who answered it, at which address, and the id it went by.
type Account struct{ Service, Node, RequestID string }

// To notes where the request went; a nil Account takes no note.
func (a *Account) To(service, node string) {
	if a != nil {
		a.Service, a.Node = service, node
	}
}

// UnixClient is the RemoteAddr of a client on a unix socket.
const UnixClient = "@"

// Local reports whether none but programs of this machine can reach the listener
// that the request came in by.
func (r *Request) Local() bool { return r.Loopback || r.RemoteAddr == UnixClient }

// loopbackKey is the context key of what [Request.Loopback] says, where
// net/http's requests have no place for it.
type loopbackKey struct{}

// WithLoopback marks the requests of a connection that came in by a listener on
// loopback.
func WithLoopback(ctx context.Context) context.Context {
	return context.WithValue(ctx, loopbackKey{}, true)
}

// OnLoopback reports whether ctx is that of a request so marked.
func OnLoopback(ctx context.Context) bool { return ctx.Value(loopbackKey{}) != nil }

// Path returns the target without its query, still escaped.
func (r *Request) Path() string {
	path, _, _ := strings.Cut(r.Target, "?")
	return path
}

// Response is a node's answer. The receiver closes Body.
type Response struct {
	Status int
	// Reason is the phrase behind the status, as the node wrote it.
	Reason string
	Header Header
	// Body is never nil; Length as in Request.
	Body   io.ReadCloser
	Length int64
	// Trailer returns the trailer fields once Body has answered io.EOF; it may be nil.
	Trailer func() Header
	// Conn is set when Status is 101: from here on both sides speak the
	// protocol they agreed on. The receiver closes it; Body is empty then.
	Conn io.ReadWriteCloser
}

// ResponseWriter sends an answer to the client.
type ResponseWriter interface {
	// Informational sends a 1xx answer (not 101) ahead of the real one.
	Informational(status int, h Header) error
	// Reason sets the phrase behind the status for the Head that follows;
	// without it, it is the usual one. Not every protocol has it.
	Reason(phrase string)
	// Head sends status and header. length as in Request. It is called once,
	// before Write.
	Head(status int, h Header, length int64) error
	// Write sends a piece of the body; Flush makes it leave at once.
	io.Writer
	Flush() error
	// Trailer sends the trailer fields and is called after the last Write.
	Trailer(h Header) error
	// Upgrade sends 101 with the header and hands over the connection.
	Upgrade(h Header) (io.ReadWriteCloser, error)
}

// ErrAborted is returned by a [Handler] that had begun an answer and cannot
// complete it: the connection (or the HTTP/2 stream) must be cut, so that the
// client does not take half an answer for a whole one.
var ErrAborted = errors.New("answer cut off")

// Handler answers a request. Any error but [ErrAborted] means that nothing
// was written, and the caller answers with it.
type Handler interface {
	Serve(ctx context.Context, r *Request, w ResponseWriter) error
}

// Error is a refusal of a request: an HTTP status from 400 to 599, a sentence
// that names what was wrong and what was expected, with 405 the methods
// allowed, and the error that it follows from, if any.
type Error struct {
	Status int
	Detail string
	Allow  string
	Err    error
	// RetryAfter is when the request may be made again, 0 when that is not known.
	RetryAfter time.Duration
	// Challenge is a way to authenticate that is offered beside those that every
	// 401 offers (RFC 9110 section 11.6.1).
	Challenge string
}

// Errorf makes an [Error].
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

// Unwrap returns the error that it follows from.
func (e *Error) Unwrap() error { return e.Err }

// BodyError is the error of a request whose body could not be read to its end:
// the reader's own refusal or the end of the context if it is that, else 400.
func BodyError(err error) error {
	if refusal := (*Error)(nil); errors.As(err, &refusal) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("read the request's body: %w", err)
	}
	return Errorf(http.StatusBadRequest, "the request's body could not be read: %v", err)
}
