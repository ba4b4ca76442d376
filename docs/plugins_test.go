//go:build unix

package docs

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	microregistry "go-micro.dev/v5/registry"
	micronats "go-micro.dev/v5/registry/nats"

	"github.com/micro/sidecar/internal/testserver"
)

var buildBlock = regexp.MustCompile("(?s)<!-- build: ([a-z]+) -->\n```go\n(.*?)```\n")

// buildPlugin builds a program of plugins.md, exactly as it stands there, in a
// module of its own.
func buildPlugin(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile("plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range buildBlock.FindAllSubmatch(page, -1) {
		if string(found[1]) == name {
			return buildModule(t, found[2])
		}
	}
	t.Fatalf("plugins.md has no program %q", name)
	return ""
}

func buildModule(t *testing.T, main []byte) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	// The versions are this module's: what go mod tidy would choose may be newer.
	module := bytes.Replace(ours, []byte("module github.com/micro/sidecar"), []byte("module example.com/mymicro"), 1)
	module = append(module, "\nrequire github.com/micro/sidecar v0.0.0\nreplace github.com/micro/sidecar => "+root+"\n"...)
	for file, text := range map[string][]byte{"main.go": main, "go.mod": module, "go.sum": sums} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "mymicro", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "mymicro")
}

var listens = regexp.MustCompile(`address="?(127\.0\.0\.1:[0-9]+)`)

// runPlugin starts a sidecar of the build and returns its address when it is
// ready.
func runPlugin(t *testing.T, program string, args ...string) string {
	t.Helper()
	var log testserver.Output
	cmd := exec.Command(program, append([]string{"sidecar", "--address=127.0.0.1:0", "--drain_delay=0s", "--data_dir=" + t.TempDir()}, args...)...)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		kill := time.AfterFunc(patient, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	})
	for deadline := time.Now().Add(patient); ; time.Sleep(20 * time.Millisecond) {
		if found := listens.FindStringSubmatch(log.String()); found != nil {
			resp, err := http.Get("http://" + found[1] + "/readyz")
			if err == nil {
				_ = resp.Body.Close()
			}
			if err == nil && resp.StatusCode == http.StatusOK {
				return found[1]
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not ready:\n%s", log.String())
		}
	}
}

// ask makes a request and returns its answer.
func ask(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// node is a JSON-RPC service that answers with its name.
func node(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("X-Key"); key != "" {
			t.Errorf("the node got X-Key: %s", key)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":0,"result":{"from":"`+name+`"}}`)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// startNATS starts a NATS server and returns its address.
func startNATS(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patient) {
		t.Fatal("NATS does not start")
	}
	return s.Addr().(*net.TCPAddr).String()
}

func TestPluginsOfGoMicro(t *testing.T) {
	t.Parallel()
	program := buildPlugin(t, "gomicro")
	engine := startNATS(t)
	addr := runPlugin(t, program, "--registry=gonats", "--registry_address="+engine, "--broker=gonats", "--broker_address="+engine)
	if status, body := ask(t, "POST", "http://"+addr+"/registry", `{"Name":"go.micro.srv.greeter","Nodes":[{"Id":"1","Address":"`+node(t, "John")+`"},{"Id":"2","Address":"`+node(t, "John")+`"}]}`); status != 200 {
		t.Fatalf("register: %d %s", status, body)
	}
	if status, body := ask(t, "POST", "http://"+addr+"/greeter/say/hello", `{}`); status != 200 || body != `{"from":"John"}` {
		t.Errorf("call: %d %s", status, body)
	}
	// go-micro's own registry sees both nodes.
	options := nats.GetDefaultOptions()
	options.AllowReconnect = false // its connection ends with the server
	theirs := micronats.NewNatsRegistry(microregistry.Addrs(engine), micronats.NatsOptions(options), microregistry.Timeout(time.Second))
	found, err := theirs.GetService("go.micro.srv.greeter")
	if err != nil || len(found) != 1 || len(found[0].Nodes) != 2 {
		t.Errorf("go-micro finds %+v, %v", found, err)
	}
	// And whoever listens on NATS gets what is published.
	conn, err := nats.Connect(engine)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sub, err := conn.SubscribeSync("news")
	if err != nil || conn.Flush() != nil {
		t.Fatal("subscribe:", err)
	}
	if status, body := ask(t, "POST", "http://"+addr+"/broker?topic=news", "hello"); status != 200 {
		t.Fatalf("publish: %d %s", status, body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if m, err := sub.NextMsgWithContext(ctx); err != nil || !bytes.Contains(m.Data, []byte(`"aGVsbG8="`)) {
		t.Errorf("NATS has %v, %v", m, err)
	}
}

func TestPluginsOfOnesOwn(t *testing.T) {
	t.Parallel()
	program := buildPlugin(t, "own")
	addr := runPlugin(t, program, "--registry=mine", "--broker=embedded", "--selector=canary")
	const key, sesame = "X-Key", "open sesame"
	if status, _ := ask(t, "GET", "http://"+addr+"/registry", ""); status != 403 {
		t.Errorf("without the key: %d", status)
	}
	if status, body := ask(t, "POST", "http://"+addr+"/registry", `{"Name":"go.micro.srv.greeter","Nodes":[
		{"Id":"1","Address":"`+node(t, "old")+`"},{"Id":"2","Address":"`+node(t, "canary")+`","Metadata":{"canary":"yes"}}]}`, key, sesame); status != 200 {
		t.Fatalf("register: %d %s", status, body)
	}
	for range 10 {
		if status, body := ask(t, "POST", "http://"+addr+"/greeter/say/hello", `{}`, key, sesame); status != 200 || body != `{"from":"canary"}` {
			t.Errorf("call: %d %s", status, body)
		}
	}
	if status, _ := ask(t, "POST", "http://"+addr+"/greeter/say/hello", `{}`); status != 403 {
		t.Errorf("a call without the key: %d", status)
	}
	out, err := exec.Command(program, "sidecar", "--selector=nosuch").CombinedOutput()
	if want := "random, hash, canary or hash:HEADER"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("an unknown selector: %v, %s; want %s", err, out, want)
	}
}

// A build with a name twice says so and does nothing, whatever it is asked.
func TestPluginsThatAreThereTwice(t *testing.T) {
	t.Parallel()
	program := buildModule(t, []byte(`package main

import "github.com/micro/sidecar"

func main() { sidecar.Main(sidecar.Standard(), sidecar.Standard()) }
`))
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, "version")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its status is looked at
	if cmd.ProcessState.ExitCode() != 2 || stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), `registry "embedded" is there twice`) {
		t.Errorf("status %d, stdout %q, stderr %q", cmd.ProcessState.ExitCode(), stdout.String(), stderr.String())
	}
}
