package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is a resolver of services that do not change.
type table map[string][]*discovery.Node

func (t table) Lookup(_ context.Context, name string) (*discovery.Service, error) {
	nodes, ok := t[name]
	if !ok {
		return nil, fmt.Errorf("lookup: %w", registry.ErrNotFound)
	}
	return &discovery.Service{Name: name, Nodes: nodes, Account: discovery.NewAccount()}, nil
}

// nodeAt makes a node of a server's address.
func nodeAt(t testing.TB, addr string, metadata map[string]string) *discovery.Node {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(addr, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	n := registry.Node{ID: addr, Address: host, Port: p, Metadata: metadata}
	return discovery.NewNode(n, "")
}

// deadNode is a node that nobody runs.
func deadNode(t testing.TB) *discovery.Node {
	t.Helper()
	return nodeAt(t, testserver.DeadAddr(t), nil)
}

// server runs an HTTP server for the test.
func server(t testing.TB, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// requests is what a node was sent.
type requests struct {
	sync.Mutex
	bodies  []string
	headers []http.Header
}

// greeter is a JSON-RPC server that always says Hello and notes what it was sent.
func greeter(t testing.TB) (addr string, seen *requests) {
	seen = new(requests)
	return server(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen.Lock()
		seen.bodies = append(seen.bodies, string(b))
		seen.headers = append(seen.headers, r.Header)
		seen.Unlock()
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("X-Secret", "of the node")
		if r.Header.Get("Content-Type") == transport.Protobuf {
			_, _ = w.Write([]byte("\x00\x00\x00\x00\x00\x00\x00\x02pb"))
			return
		}
		_, _ = io.WriteString(w, `{"id":0,"result":{"text": "Hello"},"error":null}`)
	}), seen
}

// newCaller makes a caller that takes the nodes in their order, with one retry.
func newCaller(t testing.TB, nodes table) *Caller {
	t.Helper()
	c := transport.New(transport.Options{})
	t.Cleanup(c.Close)
	first := func(s *discovery.Service, _ uint64, tried []*discovery.Node) *discovery.Node {
		for _, n := range s.Nodes {
			if !slices.Contains(tried, n) {
				return n
			}
		}
		return nil
	}
	return &Caller{
		Resolver:  nodes,
		Balancer:  &balance.Balancer{Pick: first, Retries: 1},
		Transport: c,
		Timeout:   5 * time.Second,
	}
}

// newHandler makes a handler with a body limit of 1 KiB.
func newHandler(t testing.TB, nodes table) *Handler {
	return &Handler{Namespace: "go.micro.srv", Caller: newCaller(t, nodes), MaxBody: 1 << 10, Streams: &streams.Set{}}
}

// request makes a request as it comes from a client.
func request(method, target, contentType, body string) *httpmsg.Request {
	r := &httpmsg.Request{Method: method, Target: target, Host: "localhost", Body: strings.NewReader(body), Length: int64(len(body))}
	if contentType != "" {
		r.Header.Add("Content-Type", contentType)
	}
	return r
}

// recorder is a client that notes its answer.
type recorder struct {
	status int
	header httpmsg.Header
	length int64
	body   bytes.Buffer
}

func (w *recorder) Informational(int, httpmsg.Header) error { return nil }
func (*recorder) Reason(string)                             {}

func (w *recorder) Head(status int, h httpmsg.Header, length int64) error {
	w.status, w.header, w.length = status, slices.Clone(h), length
	return nil
}
func (w *recorder) Write(b []byte) (int, error)  { return w.body.Write(b) }
func (w *recorder) Flush() error                 { return nil }
func (w *recorder) Trailer(httpmsg.Header) error { return nil }
func (w *recorder) Upgrade(httpmsg.Header) (io.ReadWriteCloser, error) {
	return nil, errors.ErrUnsupported
}

// statusOf returns the status that an error asks for, 0 for none.
func statusOf(err error) int {
	var refusal *httpmsg.Error
	if errors.As(err, &refusal) {
		return refusal.Status
	}
	return 0
}
