package transport

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry"
)

// startGoMicroGRPC builds and runs a go-micro v5 service over gRPC, in a
// process and a module of its own, and returns its node as the service itself
// registered it.
func startGoMicroGRPC(t testing.TB) *discovery.Node {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gomicrogrpc.exe")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".")
	build.Dir = filepath.Join("testdata", "gomicrogrpc")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the go-micro service: %v\n%s", err, out)
	}
	run := exec.Command(program)
	run.Stderr = t.Output()
	stdin, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill := time.AfterFunc(30*time.Second, func() { _ = run.Process.Kill() })
		defer kill.Stop()
		_ = stdin.Close() // the word to stop
		if err := run.Wait(); err != nil {
			t.Errorf("the go-micro service: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var said struct {
		ID, Address string
		Metadata    map[string]string
	}
	if err != nil || json.Unmarshal(line, &said) != nil {
		t.Fatalf("the go-micro service said %q: %v", line, err)
	}
	host, port, err := net.SplitHostPort(said.Address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if said.Metadata["protocol"] != "grpc" {
		t.Fatalf("go-micro registers %v, want protocol=grpc", said.Metadata)
	}
	return discovery.NewNode(registry.Node{ID: said.ID, Address: host, Port: number, Metadata: said.Metadata}, "")
}

func TestGoMicroOverGRPC(t *testing.T) {
	n := startGoMicroGRPC(t)
	old := n.Node
	old.Metadata = map[string]string{"server": "grpc"}
	const service = "go.micro.srv.greeter"
	for name, n := range map[string]*discovery.Node{"protocol=grpc": n, "server=grpc": discovery.NewNode(old, "")} {
		t.Run(name, func(t *testing.T) { goMicroCalls(t, newClient(t, Options{}), n, service) })
	}
	t.Run("errors", func(t *testing.T) { goMicroFails(t, newClient(t, Options{}), n, service) })
	t.Run("streams", func(t *testing.T) { goMicroStreams(t, newClient(t, Options{}), n, service) })
}

func goMicroCalls(t *testing.T, c *Client, n *discovery.Node, service string) {
	for _, method := range []string{"Say.Hello", "/go.micro.srv.greeter.Say/Hello", "any.Say/Hello"} {
		got, err := c.Call(within(t), n, Call{Service: service, Method: method, Body: []byte(`{ "name": "John" }`)})
		if err != nil || string(got) != `{"text":"Hello John","left":true}` {
			t.Errorf("%s = %s, %v", method, got, err)
		}
	}
	if got, err := c.Call(within(t), n, Call{Service: service, Method: "Say.Hello", Timeout: time.Minute}); err != nil || string(got) != `{"text":"Hello ","left":true}` {
		t.Errorf("Say.Hello with an empty body = %s, %v", got, err)
	}
	got, err := c.Call(within(t), n, Call{Service: service, Method: "Say.Hello", Body: []byte(`{"name":"meta"}`), Header: httpmsg.Header{{Name: "X-Request-Id", Value: "7"}}})
	var answer Greeting
	if err != nil || json.Unmarshal(got, &answer) != nil || answer.Meta["x-request-id"] != "7" && answer.Meta["X-Request-Id"] != "7" {
		t.Errorf("metadata: %s, %v", got, err)
	}
	arg, err := proto.Marshal(wrapperspb.String("John"))
	if err != nil {
		t.Fatal(err)
	}
	got, err = c.Call(within(t), n, Call{Service: service, Method: "Say.Proto", ContentType: "application/protobuf", Body: arg})
	var v wrapperspb.StringValue
	if err != nil || proto.Unmarshal(got, &v) != nil || v.Value != "Hello John" {
		t.Errorf("Say.Proto = %q, %v", got, err)
	}
}

func goMicroFails(t *testing.T, c *Client, n *discovery.Node, service string) {
	for _, tt := range []struct {
		method, name string
		want         ServiceError
	}{
		{"Say.Fail", "John", ServiceError{service, 404, "no John here", "Not Found"}},
		{"Say.Fail", "teapot", ServiceError{service, 418, "short and stout", "I'm a teapot"}},
		{"Say.Fail", "plain", ServiceError{service, 500, "no such name", "Internal Server Error"}},
		{"Say.Nothing", "", ServiceError{service, 501, "unknown service Say.Nothing", "Not Implemented"}},
	} {
		body, err := json.Marshal(Hello{Name: tt.name})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Call(within(t), n, Call{Service: service, Method: tt.method, Body: body})
		var got *ServiceError
		if !errors.As(err, &got) || *got != tt.want {
			t.Errorf("%s %s: %#v, want %+v", tt.method, tt.name, err, tt.want)
		}
	}
	for name, part := range map[string]string{"odd": "odd code", "panic": "handler gives up"} {
		_, err := c.Call(within(t), n, Call{Service: service, Method: "Say.Fail", Body: []byte(`{"name":"` + name + `"}`)})
		var got *ServiceError
		if !errors.As(err, &got) || got.Code != 500 {
			t.Errorf("%s: %v, want 500 with %q", name, err, part)
		}
	}
}

func goMicroStreams(t *testing.T, c *Client, n *discovery.Node, service string) {
	s, err := c.Stream(within(t), n, Call{Service: service, Method: "Say.Count"}, given(`{"n":3}`))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	receives(t, s, nil, `{"text":"0"}`, `{"text":"1"}`, `{"text":"2"}`)

	failing, err := c.Stream(within(t), n, Call{Service: service, Method: "Say.Count"}, given(`{"n":1,"name":"me"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer failing.Close()
	receives(t, failing, &ServiceError{service, 409, "after 1 for me", "Conflict"}, `{"text":"0"}`)

	_, err = c.Stream(within(t), n, Call{Service: service, Method: "Say.Count"}, given(`{"name":"me"}`))
	if said := (*ServiceError)(nil); !errors.As(err, &said) || said.Code != 409 {
		t.Errorf("an error before the first message: %v", err)
	}

	// Full duplex: each message is answered before the next is sent.
	next := make(chan []byte, 1)
	next <- []byte(`{"name":"a"}`)
	echo, err := c.Stream(within(t), n, Call{Service: service, Method: "Say.Echo"}, &Requests{Next: func() ([]byte, error) {
		m, ok := <-next
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	for _, name := range []string{"a", "b", "c"} {
		got, err := echo.Recv()
		if err != nil || string(got) != `{"text":"Hello `+name+`"}` {
			t.Fatalf("echo of %s: %s, %v", name, got, err)
		}
		if name != "c" {
			next <- []byte(`{"name":"` + string(name[0]+1) + `"}`)
		}
	}
	close(next)
	receives(t, echo, nil)
}
