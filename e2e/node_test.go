//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// john is what the examples of the contract send and get.
const (
	john      = `{"name": "John"}`
	helloJohn = `{"msg":"Hello John"}`
)

// greeter is an application of 2017's kind: a JSON-RPC server with a health
// check whose answer the test decides.
type greeter struct {
	*httptest.Server
	addr   string
	health atomic.Int64 // status
}

func newGreeter(t *testing.T) *greeter {
	t.Helper()
	g := &greeter{}
	g.health.Store(200)
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	g.addr = g.Listener.Addr().String()
	return g
}

// ServeHTTP answers calls, health checks and, as plain HTTP, everything else.
func (g *greeter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/health":
		w.WriteHeader(int(g.health.Load()))
		return
	case r.URL.Path != "/":
		fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
		return
	}
	var call struct {
		Method string
		Params []struct{ Name string }
		ID     json.RawMessage
	}
	w.Header().Set(contentType, jsonType)
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil || len(call.Params) != 1 {
		fmt.Fprint(w, `{"id":0,"error":"no call"}`)
		return
	}
	fmt.Fprintf(w, `{"id":%s,"error":null,"result":{"msg":%q}}`, call.ID, "Hello "+call.Params[0].Name)
}

// rawNode is a node that answers each connection with what serve does, so that
// a test sees and says the very bytes.
func rawNode(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			tasks.Go(func() {
				serve(conn)
				_ = conn.Close() // it may be closed
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close() // it may be closed
		}
		mu.Unlock()
		tasks.Wait()
	})
	return l.Addr().String()
}

// says is a node that reads a request's first bytes and then says text.
func says(text string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 64<<10))
		_, _ = io.WriteString(conn, text)
	}
}
