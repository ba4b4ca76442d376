package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

// fixed is a Resolver that knows one service.
type fixed struct{ *discovery.Service }

func (f fixed) Lookup(context.Context, string) (*discovery.Service, error) { return f.Service, nil }

// startProxy returns a proxy to a node that is a function of a connection.
func startProxy(t *testing.T, node func(net.Conn)) *Handler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer conn.Close(); node(conn) })
		}
	})
	balancer, err := balance.New("random")
	if err != nil {
		t.Fatal(err)
	}
	client := transport.New(transport.Options{})
	t.Cleanup(func() { client.Close(); _ = l.Close(); running.Wait() })
	at := registry.Node{ID: "n", Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
	service := discovery.NewService("s", []*discovery.Node{discovery.NewNode(at, "")})
	return &Handler{Resolver: fixed{service}, Balancer: balancer, Transport: client}
}

// sink is a ResponseWriter that keeps the status.
type sink struct{ status int }

func (*sink) Informational(int, httpmsg.Header) error { return nil }
func (*sink) Reason(string)                           {}
func (*sink) Write(b []byte) (int, error)             { return len(b), nil }
func (*sink) Flush() error                            { return nil }
func (*sink) Trailer(httpmsg.Header) error            { return nil }

func (s *sink) Head(status int, _ httpmsg.Header, _ int64) error {
	s.status = status
	return nil
}

func (*sink) Upgrade(httpmsg.Header) (io.ReadWriteCloser, error) {
	return nil, errors.New("no upgrades here")
}

// heldBody is a body that is here, and whose reading takes until it is let go.
type heldBody struct{ reading, letGo, again chan bool }

func (heldBody) Here() int { return 4 }

func (b heldBody) Read([]byte) (int, error) {
	select {
	case b.reading <- true:
		<-b.letGo
		return 0, nil
	default:
		close(b.again)
		return 0, io.ErrUnexpectedEOF
	}
}

// A body that waits for the node's word is still read when the answer may be
// over: the request's memory is not used again then.
func TestAnswerThatOvertakesTheBody(t *testing.T) {
	body := heldBody{make(chan bool, 1), make(chan bool), make(chan bool)}
	h := startProxy(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		for len(body.reading) == 0 {
			time.Sleep(time.Millisecond)
		}
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, in)
	})
	w := &sink{}
	err := h.Serve(t.Context(), &httpmsg.Request{
		Method: "POST", Target: "/s/x", Host: "h", Header: httpmsg.Header{{Name: "Expect", Value: "100-continue"}},
		Body: body, Length: 4,
	}, w)
	if err != nil || w.status != 200 {
		t.Fatal(w.status, err)
	}
	close(body.letGo)
	<-body.again
}

// The end of a body that was read is the end of the request's use: whoever sends
// its trailer asks nothing of it any more.
func TestTrailerOfARequestThatIsAnotherByNow(t *testing.T) {
	r := &httpmsg.Request{Method: "POST", Target: "/s/x", Host: "h", Body: strings.NewReader(""), Length: -1}
	r.Trailer = func() httpmsg.Header {
		return httpmsg.Header{{Name: "Sum", Value: "1"}, {Name: "Micro-Token", Value: "secret"}}
	}
	p := newPassage()
	p.begin(&Handler{}, r, &sink{})
	*r = httpmsg.Request{} // the connection's next one
	if got := format(p.out.Trailer()); got != format(httpmsg.Header{{Name: "Sum", Value: "1"}}) {
		t.Errorf("trailer %q", got)
	}
}
