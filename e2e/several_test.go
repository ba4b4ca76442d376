//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/testserver"
)

// TestSeveralRegistriesOneAway has a registry beside others that is away from
// the beginning: it hides none of them, is told, and comes in when it is there.
func TestSeveralRegistriesOneAway(t *testing.T) {
	t.Parallel()
	app := newGreeter(t)
	server := testserver.NATS(t)
	server.Stop()
	w := newWorld(t, noConsul)
	file := filepath.Join(w.home, "services.yaml")
	if err := os.WriteFile(file, []byte("services:\n  - {name: several.static, nodes: ['"+app.addr+"']}\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	// Commands join the embedded engine, and no sidecar hosts one.
	static := []string{"--registry=embedded,static", "--registry_address=," + file}
	if out := w.succeed(t, append(static, "list", "services")...); out != "several.static\n" {
		t.Errorf("list services: %q", out)
	}
	if out := w.succeed(t, append(static, "call", "several.static", "Say.Hello", john)...); !strings.Contains(out, "Hello John") {
		t.Errorf("call: %q", out)
	}
	w.fails(t, 1, "no sidecar is running", append(static, "register", "service", `{"Name":"x","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`)...)
	w.fails(t, 1, "no sidecar is running", append(static, "get", "service", "several.nosuch")...)

	s := w.sidecar(t, "--registry=nats,static", "--registry_address=nats://"+server.Addr+",static://"+file, "--broker=http", "--namespace=several")
	s.post("/static/say/hello", john).is(t, 200, helloJohn)
	s.post("/nosuch/say/hello", john).refused(t, 503, "")
	s.post("/registry", `{"Name":"several.nats","Nodes":[{"Id":"1","Address":"`+app.addr+`"}]}`).refused(t, 503, "")
	server.Start()
	within(t, patient, "the other to be used", func() bool {
		return s.post("/registry", `{"Name":"several.nats","Nodes":[{"Id":"1","Address":"`+app.addr+`"}]}`).status == 200
	})
	s.post("/nats/say/hello", john).is(t, 200, helloJohn)
	s.post("/nosuch/say/hello", john).refused(t, 404, "")
}

// TestStartIsExplained: while an engine is away at the start, /readyz says
// which one is waited for, and why.
func TestStartIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul).with(registryAt("nats", "127.0.0.1:1")...)
	s := w.launch(t, "--admin_address=127.0.0.1:0")
	within(t, patient, "what is waited for", func() bool { return strings.Contains(s.get("/readyz").body, "registry nats") })
	s.get("/readyz").refused(t, 503, "registry nats")
	within(t, patient, "the reason", func() bool {
		a := s.get("/readyz")
		return a.status == 503 && strings.Contains(a.body, "registry nats") && strings.Contains(a.body, "refused")
	})
	s.get("/livez").is(t, 200, "ok\n")
}
