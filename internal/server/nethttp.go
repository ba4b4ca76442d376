package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Routes are the two kinds of handlers behind a listener.
type Routes interface {
	// Own returns the handler of one of the sidecar's own exact paths, or nil.
	Own(path string) http.Handler
	// Handler answers everything else, errors included: it returns nil or
	// [httpmsg.ErrAborted].
	httpmsg.Handler
}

// entrance is the net/http way into the sidecar.
type entrance struct {
	routes atomic.Pointer[Routes]
	count  func(status int)
	log    *slog.Logger
	active sync.WaitGroup // handlers running, those of upgraded connections included
}

// ServeHTTP sends a request to its handler and counts the answer.
func (e *entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.active.Add(1)
	defer e.active.Done()
	rec := &recorder{ResponseWriter: w}
	defer e.finish(rec, r)
	defer drain(rec, r)
	routes := *e.routes.Load()
	target := originForm(r.RequestURI)
	path, _, _ := strings.Cut(target, "?")
	if own := routes.Own(path); own != nil {
		own.ServeHTTP(rec, r)
		return
	}
	req := request(r, target)
	out := &exchange{w: rec, control: http.NewResponseController(rec), method: r.Method}
	err := routes.Serve(r.Context(), req, out)
	if out.conn != nil {
		return
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// finish counts the answer; a panic is logged, and answered with 500 when
// nothing was written.
func (e *entrance) finish(rec *recorder, r *http.Request) {
	v := recover()
	if v != nil && v != http.ErrAbortHandler { //nolint:errorlint // net/http compares the same way
		e.log.Error("panic while answering a request", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v))
		if rec.status == 0 {
			rec.WriteHeader(http.StatusInternalServerError)
			v = nil
		} else {
			v = http.ErrAbortHandler
		}
	}
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	e.count(rec.status)
	if v != nil {
		panic(v)
	}
}

const (
	// drainLimit and drainTime bound what is read of a body that nobody wanted.
	drainLimit = 64 << 20
	drainTime  = time.Second
)

// drain reads the rest of a refused request's body. A client that is still
// sending when the connection closes would lose the answer (RFC 9112 section
// 9.6).
func drain(rec *recorder, r *http.Request) {
	if rec.status < 400 || r.Body == http.NoBody || r.Header.Get("Expect") != "" {
		return
	}
	control := http.NewResponseController(rec)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, drainLimit) // what is over stays over
	_ = control.SetReadDeadline(time.Time{})
}

// recorder remembers the status. Unwrap lets http.ResponseController and
// WebSocket upgrades through.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// originForm cuts scheme and authority off an absolute-form target (RFC 9112
// section 3.2.2).
func originForm(target string) string {
	if strings.HasPrefix(target, "/") || target == "*" {
		return target
	}
	if _, rest, ok := strings.Cut(target, "://"); ok {
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			if rest[i] == '?' {
				return "/" + rest[i:]
			}
			return rest[i:]
		}
		return "/"
	}
	return target
}

// request is r as the data plane sees it. net/http has lost the order and the
// case of the names; they come sorted.
func request(r *http.Request, target string) *httpmsg.Request {
	req := &httpmsg.Request{
		Method:     r.Method,
		Target:     target,
		Host:       r.Host,
		Header:     fields(r.Header),
		Body:       r.Body,
		Length:     r.ContentLength,
		RemoteAddr: r.RemoteAddr,
		TLS:        r.TLS != nil,
	}
	if len(r.Trailer) > 0 {
		req.Header.Add("Trailer", strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ", "))
		req.Trailer = func() httpmsg.Header { return fields(r.Trailer) }
	}
	return req
}

func fields(h http.Header) httpmsg.Header {
	out := make(httpmsg.Header, 0, len(h)+4)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			out = append(out, httpmsg.Field{Name: name, Value: value})
		}
	}
	return out
}

// exchange is an httpmsg.ResponseWriter over net/http's.
type exchange struct {
	w       http.ResponseWriter
	control *http.ResponseController
	method  string
	conn    io.ReadWriteCloser // after an upgrade
}

func (x *exchange) Informational(status int, h httpmsg.Header) error {
	header := x.w.Header()
	for _, f := range h {
		header.Add(f.Name, f.Value)
	}
	x.w.WriteHeader(status)
	clear(header)
	return nil
}

func (x *exchange) Head(status int, h httpmsg.Header, length int64) error {
	header := x.w.Header()
	clear(header)
	// Nothing is invented: net/http leaves out what is set to nil.
	header["Date"] = nil
	header["Content-Type"] = nil
	for _, f := range h {
		header[http.CanonicalHeaderKey(f.Name)] = append(header[http.CanonicalHeaderKey(f.Name)], f.Value)
	}
	if length >= 0 && status >= 200 && status != http.StatusNoContent && (status != http.StatusNotModified || length > 0) {
		header.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	x.w.WriteHeader(status)
	return nil
}

func (x *exchange) Write(b []byte) (int, error) { return x.w.Write(b) }

func (x *exchange) Flush() error { return x.control.Flush() }

func (x *exchange) Trailer(h httpmsg.Header) error {
	for _, f := range h {
		x.w.Header().Add(http.TrailerPrefix+f.Name, f.Value)
	}
	return nil
}

// Upgrade hijacks the connection and writes the 101 itself.
func (x *exchange) Upgrade(h httpmsg.Header) (io.ReadWriteCloser, error) {
	conn, buffered, err := x.control.Hijack()
	if err != nil {
		return nil, err
	}
	if r, ok := x.w.(*recorder); ok {
		r.status = http.StatusSwitchingProtocols
	}
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	for _, f := range h {
		fmt.Fprintf(&head, "%s: %s\r\n", f.Name, f.Value)
	}
	head.WriteString("\r\n")
	up := &upgraded{Conn: conn, r: buffered.Reader}
	x.conn = up
	if _, err := conn.Write(head.Bytes()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return up, nil
}

// upgraded is a hijacked connection with what net/http had read of it already.
type upgraded struct {
	net.Conn
	r *bufio.Reader
}

func (u *upgraded) Read(b []byte) (int, error) { return u.r.Read(b) }

// CloseWrite closes the sending half.
func (u *upgraded) CloseWrite() error {
	if c, ok := u.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return u.Conn.Close()
}
