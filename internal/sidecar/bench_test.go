package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// The costs of a request, its client and node included, which allocate nothing.
func BenchmarkRequest(b *testing.B) {
	for _, tt := range []struct{ name, request, answer, metadata string }{
		{"proxy", "GET /plain/x HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nMicro-Handler: proxy\r\nUser-Agent: b\r\n\r\n", `{"msg":"Hello John"}`, ""},
		{"upload", "POST /plain/x HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nMicro-Handler: proxy\r\nContent-Length: 16\r\n\r\n{\"name\": \"John\"}", `{"msg":"Hello John"}`, ""},
		{"JSON-RPC", "POST /plain/say/hello HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"name\": \"John\"}", `{"id":0,"result":{"msg":"Hello John"},"error":null}`, ""},
		{"mucp", "POST /plain/say/hello HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"name\": \"John\"}", `{"msg":"Hello John"}`, "mucp"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			n := quietNode(b, tt.answer)
			s := benchmarked(b, n.l.Addr(), map[string]string{"protocol": tt.metadata})
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			request, buf := []byte(tt.request), make([]byte, 4<<10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(request); err != nil {
					b.Fatal(err)
				}
				if got, err := conn.Read(buf); err != nil || !bytes.HasPrefix(buf[:got], []byte("HTTP/1.1 200 ")) {
					b.Fatalf("%q, %v", buf[:got], err)
				}
			}
		})
	}
}

// quietNode answers every request with answer, and allocates nothing for it.
// A request comes in one piece.
func quietNode(b *testing.B, answer string) *rawNode {
	out := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: n\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
	return startNode(b, func(conn *net.TCPConn, _ *bufio.Reader) {
		buf := make([]byte, 4<<10)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
	})
}

// benchmarked starts a sidecar that knows a node of the service plain.
func benchmarked(b *testing.B, node net.Addr, metadata map[string]string) *running {
	cfg := testConfig()
	r := &running{registry: memory.New(), log: &testserver.Output{}}
	addr := node.(*net.TCPAddr)
	if err := r.registry.Register(b.Context(), registry.Service{Name: "go.micro.srv.plain", Nodes: []registry.Node{{ID: "n", Address: "127.0.0.1", Port: addr.Port, Metadata: metadata}}}, 0); err != nil {
		b.Fatal(err)
	}
	drivers := Drivers{
		Registries: map[string]func(context.Context, Env) (registry.Registry, error){
			"memory": func(context.Context, Env) (registry.Registry, error) { return r.registry, nil },
		},
		Brokers: map[string]func(context.Context, Env) (broker.Broker, error){
			"memory": func(context.Context, Env) (broker.Broker, error) { return brokermemory.New(), nil },
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Run(ctx, cfg, drivers, slog.New(slog.NewTextHandler(r.log, nil))) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	address := regexp.MustCompile(`address="?([0-9.:]+)`)
	for !strings.Contains(r.log.String(), "msg=ready") {
		time.Sleep(time.Millisecond)
	}
	r.url = "http://" + address.FindStringSubmatch(r.log.String())[1]
	return r
}
