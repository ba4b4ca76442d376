package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/registry"
)

// maxAnswer bounds what a sidecar may answer, in bytes: far above its body
// limit and far below what memory has.
const maxAnswer = 256 << 20

// proxied is a client that goes through a sidecar's HTTP API.
type proxied struct {
	base *proxyURL
	http *http.Client
}

func newProxied(base *proxyURL, shown showing) *proxied {
	proxy := http.ProxyFromEnvironment
	if base.socket != "" {
		proxy = nil
	}
	return &proxied{base, &http.Client{
		// Compression would put Accept-Encoding into published messages.
		Transport: shown.on(&http.Transport{
			Proxy: proxy, DialContext: base.dial, ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: shown.tls,
		}),
		// A redirect would repeat the request elsewhere: no sidecar sends one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close frees the connections.
func (p *proxied) Close() error {
	p.http.CloseIdleConnections()
	return nil
}

// List asks for the services' names.
func (p *proxied) List(ctx context.Context) ([]string, error) {
	var services []struct{ Name string }
	if err := p.ask(ctx, http.MethodGet, p.base.endpoint("registry", nil), nil, &services); err != nil {
		return nil, err
	}
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = s.Name
	}
	return names, nil
}

// Get asks for the versions of a service.
func (p *proxied) Get(ctx context.Context, name string) ([]registry.Service, error) {
	var versions []registry.Service
	query := url.Values{"service": {name}, "versions": {"true"}}
	err := p.ask(ctx, http.MethodGet, p.base.endpoint("registry", query), nil, &versions)
	return versions, err
}

// Register registers the service's nodes.
func (p *proxied) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	query := url.Values{}
	if ttl > 0 {
		query.Set("ttl", ttl.String())
	}
	return p.ask(ctx, http.MethodPost, p.base.endpoint("registry", query), s, nil)
}

// Deregister removes the service's nodes.
func (p *proxied) Deregister(ctx context.Context, s registry.Service) error {
	return p.ask(ctx, http.MethodDelete, p.base.endpoint("registry", nil), s, nil)
}

// Call makes an RPC. The sidecar keeps the time, so that its own error tells
// what ran out of it.
func (p *proxied) Call(ctx context.Context, c call) (json.RawMessage, error) {
	body, err := json.Marshal(map[string]any{
		"service": c.service, "method": c.method, "address": c.address, "request": c.request,
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base.endpoint("rpc", nil), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Timeout", c.timeout.String())
	return p.do(req)
}

// connectionFields cannot be a message's when it travels as a request: they
// would end at the sidecar, or never leave.
var connectionFields = []string{
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
}

// Publish sends the message as the request's body, its header as the request's.
func (p *proxied) Publish(ctx context.Context, topic string, m broker.Message, o publishing) error {
	if o.id != "" {
		m.Header = withField(m.Header, "Micro-Id", o.id)
	}
	if o.delay > 0 {
		m.Header = withField(m.Header, "Micro-Delay", o.delay.String())
	}
	target := p.base.endpoint("broker", url.Values{"topic": {topic}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(m.Body))
	if err != nil {
		return err
	}
	req.Header["User-Agent"] = nil // it would become the message's
	for name, value := range m.Header {
		if slices.ContainsFunc(connectionFields, func(f string) bool { return strings.EqualFold(f, name) }) {
			return fmt.Errorf("header %s belongs to the connection: it cannot go through a sidecar", name)
		}
		req.Header[name] = []string{value} // not Set: the spelling counts
	}
	_, err = p.do(req)
	return err
}

// Watch reads the registry's server-sent events.
func (p *proxied) Watch(ctx context.Context, live func(), emit func(discovery.Change) error) error {
	reading, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	req, err := http.NewRequestWithContext(reading, http.MethodGet, p.base.endpoint("registry", nil), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := p.http.Do(req)
	if err != nil {
		return p.unreachable(err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		return refusal(resp)
	}
	live()
	idle := time.AfterFunc(silence, func() { cut(errSilent) })
	defer idle.Stop()
	err = readEvents(&activity{resp.Body, idle}, func(data []byte) error {
		var change discovery.Change
		if err := json.Unmarshal(data, &change); err != nil {
			return fmt.Errorf("a change that is none: %w", err)
		}
		if err := emit(change); err != nil {
			return &emitError{err}
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, io.EOF): // in order: a connection that breaks says ErrUnexpectedEOF
		return fmt.Errorf("the sidecar at %s ended the watch: it is shutting down", p.base)
	case errors.Is(context.Cause(reading), errSilent):
		err = errSilent
	}
	return p.lost(err)
}

// errSilent is why a stream that says nothing for too long is cut.
var errSilent = fmt.Errorf("nothing was heard from it for %v", silence)

// silence is how long a stream of events may say nothing: a sidecar sends a
// comment four times as often.
const silence = time.Minute

// activity puts a timer off with every piece that was read.
type activity struct {
	io.Reader
	idle *time.Timer
}

// Read reads and puts the timer off.
func (a *activity) Read(b []byte) (int, error) {
	n, err := a.Reader.Read(b)
	a.idle.Reset(silence)
	return n, err
}

// readEvents calls emit with the data of each server-sent event. It returns
// the error that ended the stream or came from emit, io.EOF at its end.
func readEvents(r io.Reader, emit func(data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAnswer)
	var data []byte
	for lines.Scan() {
		line := bytes.TrimSuffix(lines.Bytes(), []byte("\r"))
		if len(line) == 0 {
			if len(data) > 0 {
				if err := emit(data); err != nil {
					return err
				}
			}
			data = nil
			continue
		}
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if len(data)+len(value) > maxAnswer {
				return bufio.ErrTooLong
			}
			data = append(append(data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}

// ask sends in as JSON, when there is any, and reads the answer into out.
func (p *proxied) ask(ctx context.Context, method, target string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := p.do(req)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s does not answer like a sidecar: %w", p.base, err)
	}
	return nil
}

// do sends a request and returns the body of a 200 answer.
func (p *proxied) do(req *http.Request) ([]byte, error) {
	resp, err := p.http.Do(req)
	if errors.Is(err, net.ErrClosed) && req.Body == nil {
		// The transport has closed the connection, but does not say what for: when
		// the server ends a handshake, and is quicker than the request. Asked again it says so.
		resp, err = p.http.Do(req)
	}
	if err != nil {
		return nil, p.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, p.unreachable(err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer of the sidecar at %s is larger than %d bytes", p.base, maxAnswer)
	}
	return body, nil
}

// unreachable says which sidecar could not be asked.
func (p *proxied) unreachable(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("the sidecar at %s does not speak TLS: --proxy_address=http://%s", p.base, p.base.url.Host)
	}
	if p.base.url.Scheme == "http" && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) && p.wantsTLS() {
		return speaksTLS(p.base.url.Host)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		err = fmt.Errorf("%w; --ca_file names one", err)
	}
	return fmt.Errorf("the sidecar at %s: %w", p.base, err)
}

// notTLS is in the answer of a server that speaks TLS to a client that does not.
const notTLS = "sent an HTTP request to an HTTPS server"

func speaksTLS(host string) error {
	return fmt.Errorf("the sidecar at %s speaks TLS: --proxy_address=https://%s", host, host)
}

// wantsTLS asks once more, without a body: a server that says notTLS and closes
// the connection is not heard by who is still sending one.
func (p *proxied) wantsTLS() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.base.url.Host+"/livez", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(4*len(notTLS))))
	return saysNotTLS(resp, body, err)
}

// saysNotTLS tells such an answer, also by its head alone, in a version of HTTP
// that sidecars do not speak, when its body was cut off.
func saysNotTLS(resp *http.Response, body []byte, err error) bool {
	return resp.StatusCode == http.StatusBadRequest &&
		(bytes.Contains(body, []byte(notTLS)) || err != nil && !resp.ProtoAtLeast(1, 1))
}

// refusal is the error that a sidecar's answer stands for: its detail, or the
// status line of one that is not in the sidecar's form.
func refusal(resp *http.Response) error {
	const maxError = 64 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		body = nil // what was read of it is no answer: the status is
	}
	var said struct{ Detail string }
	switch told := json.Unmarshal(body, &said) == nil && said.Detail != ""; {
	case resp.Request != nil && saysNotTLS(resp, body, err):
		return speaksTLS(resp.Request.URL.Host)
	case resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") != "":
		return errors.New("the sidecar asks for a token, or for another one: see --token_file")
	case told:
		return errors.New(said.Detail)
	}
	return fmt.Errorf("the sidecar answered %s, and not as sidecars do: is there another server at --proxy_address?", resp.Status)
}
