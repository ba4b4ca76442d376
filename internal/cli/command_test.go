package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"

	"github.com/micro/sidecar/internal/testserver"
)

// lasting keeps an engine in memory for the next command: the commands close
// what they opened.
type lasting struct{ broker.Broker }

func (lasting) Close() error { return nil }

// fleeting is as mDNS is.
type fleeting struct{ registry.Registry }

func (fleeting) EndsWithProcess() {}

// inMemory is a table with one registry and one broker, shared by all commands.
func inMemory(t *testing.T) (sidecar.Drivers, []string) {
	reg, messages := memory.New(), brokermemory.New()
	t.Cleanup(func() {
		if err := messages.Close(); err != nil {
			t.Error(err)
		}
	})
	return sidecar.Drivers{
		Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){
			"memory":   func(context.Context, sidecar.Env) (registry.Registry, error) { return reg, nil },
			"fleeting": func(context.Context, sidecar.Env) (registry.Registry, error) { return fleeting{reg}, nil },
			"broken": func(context.Context, sidecar.Env) (registry.Registry, error) {
				return nil, errors.New("no host is running:\nstart a sidecar")
			},
		},
		Brokers: map[string]func(context.Context, sidecar.Env) (broker.Broker, error){
			"memory": func(context.Context, sidecar.Env) (broker.Broker, error) { return lasting{messages}, nil },
		},
	}, []string{"MICRO_REGISTRY=memory", "MICRO_BROKER=memory"}
}

// works runs a command that must succeed in silence, and returns what it printed.
func works(t *testing.T, d sidecar.Drivers, env []string, args ...string) string {
	t.Helper()
	got := micro(t, d, env, args...)
	if got.status != exitOK || got.err != "" {
		t.Fatalf("micro %s: status %d, stderr %q", strings.Join(args, " "), got.status, got.err)
	}
	return got.out
}

// fails runs a command that must fail with one line that contains want.
func fails(t *testing.T, d sidecar.Drivers, env []string, want string, args ...string) string {
	t.Helper()
	got := micro(t, d, env, args...)
	if got.status != exitFailure || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, want) {
		t.Errorf("micro %s: status %d, stderr %q, want 1 and %q", strings.Join(args, " "), got.status, got.err, want)
	}
	return got.out
}

const greeter = `{"Name":"greeter","Version":"1.0.0","Metadata":{"team":"a"},
	"Endpoints":[{"Name":"Say.Hello","Request":{"Name":"Request","Type":"Request","Values":[{"Name":"name","Type":"string"}]}}],
	"Nodes":[{"Id":"g-1","Address":"127.0.0.1","Port":9090,"Metadata":{"zone":"x"}},{"Id":"g-2","Address":"[::1]:9091"}]}`

func TestRegistryCommands(t *testing.T) {
	d, env := inMemory(t)
	if got := works(t, d, env, "list", "services"); got != "" {
		t.Errorf("an empty registry lists %q", got)
	}
	if got := works(t, d, env, "list", "services", "--output=json"); got != "[]\n" {
		t.Errorf("an empty registry lists %q as JSON", got)
	}
	fails(t, d, env, "service greeter not found", "get", "service", "greeter")
	fails(t, d, env, "a registration in fleeting ends with the process that made it", "register", "service", greeter, "--registry=fleeting")
	fails(t, d, env, "service greeter not found", "get", "service", "greeter", "--registry=fleeting")

	if got := works(t, d, env, "register", "service", greeter, "--ttl=1m"); got != "" {
		t.Errorf("register prints %q", got)
	}
	works(t, d, env, "registry", "register", "service", `{"name":"a\u001b[31m","nodes":[{"id":"1","address":"h","port":1}]}`)
	if got, want := works(t, d, env, "registry", "list", "services"), "a\\x1b[31m\ngreeter\n"; got != want {
		t.Errorf("list prints %q, want %q", got, want)
	}
	if got, want := works(t, d, env, "list", "services", "--output", "json"), `[{"name":"a\u001b[31m"},{"name":"greeter"}]`+"\n"; got != want {
		t.Errorf("list prints %q, want %q", got, want)
	}
	const table = `service  greeter

version  1.0.0
metadata  team=a

NODE  ADDRESS    PORT  METADATA
g-1   127.0.0.1  9090  zone=x
g-2   ::1        9091  -

ENDPOINT   REQUEST               RESPONSE  METADATA
Say.Hello  Request{name string}  -         -
`
	if got := works(t, d, env, "get", "service", "greeter"); got != table {
		t.Errorf("get prints\n%s\nwant\n%s", got, table)
	}
	var versions []registry.Service
	if err := json.Unmarshal([]byte(works(t, d, env, "get", "service", "greeter", "--output=json")), &versions); err != nil {
		t.Fatal(err)
	}
	if len(versions) != 1 || len(versions[0].Nodes) != 2 || versions[0].Nodes[1].Port != 9091 {
		t.Errorf("get prints %+v as JSON", versions)
	}

	works(t, d, env, "register", "service", `{"name":"socket","nodes":[{"id":"s","address":"unix:/run/s.sock"}]}`)
	if got, want := works(t, d, env, "get", "service", "socket"), "s     unix:/run/s.sock  -     -\n"; !strings.HasSuffix(got, want) {
		t.Errorf("get prints\n%s\nwant at the end\n%s", got, want)
	}

	works(t, d, env, "deregister", "service", `{"name":"greeter","nodes":[{"id":"g-1"},{"id":"none"}]}`)
	if got := works(t, d, env, "get", "service", "greeter"); strings.Contains(got, "g-1") || !strings.Contains(got, "g-2") {
		t.Errorf("after deregister: %s", got)
	}
}

func TestEngineThatIsNotThere(t *testing.T) {
	d, _ := inMemory(t)
	fails(t, d, nil, "no host is running:; start a sidecar", "list", "services", "--registry=broken")
	fails(t, d, nil, "connection refused", "list", "services", "--proxy_address=127.0.0.1:1")
	fails(t, d, nil, "connection refused", "subscribe", "t", "--proxy_address=127.0.0.1:1")
	fails(t, d, nil, "connection refused", "watch", "--proxy_address=127.0.0.1:1")
}

// jsonrpc is a service in the form of 2017 whose answers are made by method.
func jsonrpc(t *testing.T, answers map[string]string) (node string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Method string
			Params []json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, ok := answers[request.Method]
		if !ok {
			answer = fmt.Sprintf(`"error":"no method %s"`, request.Method)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":0,%s}`, strings.ReplaceAll(answer, "$", string(request.Params[0])))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestCall(t *testing.T) {
	d, env := inMemory(t)
	node := jsonrpc(t, map[string]string{
		"Say.Hello": `"result":{"got":$,"big":12345678901234567890}`,
		"Say.No":    `"error":"{\"id\":\"greeter\",\"code\":403,\"detail\":\"not you\",\"status\":\"Forbidden\"}"`,
	})
	works(t, d, env, "register", "service", fmt.Sprintf(`{"name":"greeter","nodes":[{"id":"g","address":%q}]}`, node))

	want := "{\n  \"got\": {\n    \"name\": \"John\"\n  },\n  \"big\": 12345678901234567890\n}\n"
	for _, command := range []string{"call", "query"} {
		if got := works(t, d, env, command, "greeter", "Say.Hello", `{"name":"John"}`); got != want {
			t.Errorf("%s prints %q, want %q", command, got, want)
		}
	}
	if got := works(t, d, env, "call", "greeter", "Say.Hello"); !strings.Contains(got, `"got": {}`) {
		t.Errorf("without a request: %q", got)
	}
	// A node that nobody registered.
	if got := works(t, d, env, "call", "nobody", "Say.Hello", "--address="+node); !strings.Contains(got, `"got": {}`) {
		t.Errorf("with an address: %q", got)
	}
	fails(t, d, env, "not you", "call", "greeter", "Say.No")
	fails(t, d, env, "nobody not found", "call", "nobody", "Say.Hello")
	fails(t, d, env, "127.0.0.1:1", "call", "greeter", "Say.Hello", "--address=127.0.0.1:1")
}

func TestCallTimeout(t *testing.T) {
	d, env := inMemory(t)
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer server.Close()
	defer close(done)
	fails(t, d, env, "50ms", "call", "slow", "Say.Hello", "--timeout=50ms", "--address="+server.Listener.Addr().String())
}

func TestHealthAndStats(t *testing.T) {
	d, env := inMemory(t)
	well := jsonrpc(t, map[string]string{
		"Debug.Health": `"result":{"status":"ok"}`,
		"Debug.Stats":  `"result":{"uptime":7,"memory":"1.5MB"}`,
	})
	works(t, d, env, "register", "service", fmt.Sprintf(`{"name":"greeter","version":"1","nodes":[{"id":"well","address":%q}]}`, well))
	if got := works(t, d, env, "health", "greeter"); !strings.Contains(got, "well") || !strings.Contains(got, "ok") {
		t.Errorf("health prints %q", got)
	}
	if got := works(t, d, env, "stats", "greeter"); !strings.Contains(got, "uptime   7\n") || !strings.Contains(got, "memory   1.5MB\n") {
		t.Errorf("stats prints %q", got)
	}

	works(t, d, env, "register", "service", `{"name":"greeter","version":"1","nodes":[{"id":"dead","address":"127.0.0.1:1"}]}`)
	for _, command := range []string{"health", "stats"} {
		got := fails(t, d, env, "node dead failed", command, "greeter")
		if !strings.Contains(got, "well") || !strings.Contains(got, "refused") {
			t.Errorf("%s prints %q", command, got)
		}
	}
	var answers []nodeAnswer
	if err := json.Unmarshal([]byte(fails(t, d, env, "node dead failed", "health", "greeter", "--output=json")), &answers); err != nil {
		t.Fatal(err)
	}
	if len(answers) != 2 || answers[0].Node != "dead" || answers[0].Error == "" || string(answers[1].Answer) != `{"status":"ok"}` {
		t.Errorf("health prints %+v as JSON", answers)
	}
	fails(t, d, env, "nobody not found", "stats", "nobody")
}

// running is a command that runs until it is stopped.
type running struct {
	t      *testing.T
	out    buffer
	err    buffer
	cancel context.CancelFunc
	status chan int
}

func begin(t *testing.T, d sidecar.Drivers, env []string, args ...string) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, cancel: cancel, status: make(chan int, 1)}
	go func() {
		r.status <- run(ctx, args, &streams{env: env, in: strings.NewReader(""), out: &r.out, err: &r.err}, d)
	}()
	t.Cleanup(cancel)
	return r
}

// stop ends the command as SIGINT does.
func (r *running) stop() int {
	r.cancel()
	return r.ended()
}

func (r *running) ended() int {
	r.t.Helper()
	select {
	case status := <-r.status:
		return status
	case <-time.After(30 * time.Second):
		r.t.Fatalf("the command does not end; stderr %q", r.err.String())
		return -1
	}
}

// buffer is what a running command has printed so far.
type buffer struct{ testserver.Output }

// wait returns when the buffer contains want.
func (b *buffer) wait(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(b.String(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q did not come; there is %q", want, b.String())
		}
	}
}

func TestPublishAndSubscribe(t *testing.T) {
	d, env := inMemory(t)
	text := begin(t, d, env, "subscribe", "news")
	machine := begin(t, d, env, "subscribe", "news", "--output=json")
	text.err.wait(t, "micro: subscribed to news\n")
	machine.err.wait(t, "micro: subscribed to news\n")
	for _, body := range []string{"hello", "with a\ttab\n", "two\nlines", "\x1b[31m", "", "último"} {
		works(t, d, env, "publish", "news", body, "--header", "a=b", "--header=X-Y=c,d=e")
	}
	want := "hello\nwith a\ttab\ndHdvCmxpbmVz\nG1szMW0=\n\núltimo\n"
	text.out.wait(t, want)
	machine.out.wait(t, `{"Header":{"X-Y":"c,d=e","a":"b"},"Body":"aGVsbG8="}`+"\n")
	machine.out.wait(t, `"Body":"w7psdGltbw=="}`+"\n") // the last one
	if status := text.stop(); status != exitOK {
		t.Errorf("status %d, stderr %q", status, text.err.String())
	}
	if status := machine.stop(); status != exitOK || strings.Count(machine.out.String(), "\n") != 6 {
		t.Errorf("status %d, stdout %q", status, machine.out.String())
	}
}

func TestWatchOfARegistryThatIsAway(t *testing.T) {
	away := memory.New()
	away.Break(errors.New("nobody is there"))
	d := sidecar.Drivers{Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){
		"memory": func(context.Context, sidecar.Env) (registry.Registry, error) { return away, nil },
	}}
	r := begin(t, d, []string{"MICRO_REGISTRY=memory"}, "watch")
	if status := r.ended(); status != exitFailure || !strings.Contains(r.err.String(), "nobody is there") {
		t.Errorf("status %d, stderr %q", status, r.err.String())
	}
}

func TestWatch(t *testing.T) {
	d, env := inMemory(t)
	text := begin(t, d, env, "watch")
	machine := begin(t, d, env, "watch", "services", "--output=json")
	text.err.wait(t, "watching")
	machine.err.wait(t, "watching")
	works(t, d, env, "register", "service", greeter)
	text.out.wait(t, "create greeter 1.0.0 g-1=127.0.0.1:9090 g-2=[::1]:9091\n")
	works(t, d, env, "deregister", "service", greeter)
	text.out.wait(t, "delete greeter 1.0.0")
	machine.out.wait(t, `{"Action":"delete","Service":{"name":"greeter"`)
	if status := text.stop(); status != exitOK {
		t.Errorf("status %d, stderr %q", status, text.err.String())
	}
	machine.stop()
}

// Standard input that never ends does not keep an interrupted command.
func TestInterruptedWhileReading(t *testing.T) {
	d, env := inMemory(t)
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	var out, err strings.Builder
	s := &streams{env: env, in: blocked{release, cancel}, out: &out, err: &err}
	if status := run(ctx, []string{"publish", "t", "-"}, s, d); status != exitFailure || !strings.Contains(err.String(), "interrupted") {
		t.Errorf("status %d, stderr %q", status, err.String())
	}
}

// blocked is a reader that says when it is read, and blocks.
type blocked struct {
	release chan struct{}
	begun   func()
}

// Read blocks until release is closed.
func (b blocked) Read([]byte) (int, error) {
	b.begun()
	<-b.release
	return 0, errors.New("released")
}

func TestPublishFromStandardInput(t *testing.T) {
	d, env := inMemory(t)
	r := begin(t, d, env, "subscribe", "t")
	r.err.wait(t, "subscribed")
	var out, err strings.Builder
	s := &streams{env: env, in: strings.NewReader("from outside\n"), out: &out, err: &err}
	if status := run(t.Context(), []string{"publish", "t", "-"}, s, d); status != exitOK || err.String() != "" {
		t.Fatalf("status %d, stderr %q", status, err.String())
	}
	r.out.wait(t, "from outside\n")
	r.stop()
}
