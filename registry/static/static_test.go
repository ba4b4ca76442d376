package static_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/registrytest"
	"github.com/micro/sidecar/registry/static"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a file; out gets what is logged.
func open(t *testing.T, path, query string) (*static.Registry, *testserver.Output) {
	t.Helper()
	out := &testserver.Output{}
	r, err := static.Open(&url.URL{Scheme: "static", Path: path, RawQuery: query}, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, out
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func awaitNodes(t *testing.T, r registry.Registry, name, want string) {
	t.Helper()
	registrytest.Eventually(t, func() string {
		if have := registrytest.Nodes(t.Context(), r, name); have != want {
			return "have " + have + ", want " + want
		}
		return ""
	})
}

// editor registers by writing the file, as whoever keeps it would.
type editor struct {
	*static.Registry
	path string

	mu       sync.Mutex
	services []registry.Service
}

func (e *editor) Register(ctx context.Context, s registry.Service, _ time.Duration) error {
	return e.edit(ctx, s, true)
}

func (e *editor) Deregister(ctx context.Context, s registry.Service) error {
	return e.edit(ctx, s, false)
}

func (e *editor) edit(ctx context.Context, s registry.Service, add bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var kept []registry.Service
	for _, have := range e.services {
		if have.Name == s.Name {
			if add && have.Version == s.Version {
				have.Metadata, have.Endpoints = s.Metadata, s.Endpoints
			}
			have.Nodes = slices.DeleteFunc(slices.Clone(have.Nodes), func(n registry.Node) bool {
				return slices.ContainsFunc(s.Nodes, func(o registry.Node) bool { return o.ID == n.ID })
			})
			if add && have.Version == s.Version {
				have.Nodes, add = append(have.Nodes, s.Nodes...), false
			}
		}
		if len(have.Nodes) > 0 {
			kept = append(kept, have)
		}
	}
	if add {
		kept = append(kept, s)
	}
	e.services = kept
	text, err := json.Marshal(map[string]any{"services": append([]registry.Service{}, kept...)})
	if err != nil {
		return err
	}
	text = []byte(strings.ReplaceAll(string(text), `"port":0,`, "")) // of sockets
	if err := os.WriteFile(e.path, text, 0o600); err != nil {
		return err
	}
	e.Reload(context.WithoutCancel(ctx))
	return nil
}

func TestSuite(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		path := filepath.Join(t.TempDir(), "services.json")
		write(t, path, `{"services":[]}`)
		r, out := open(t, path, "")
		t.Cleanup(func() {
			if strings.Contains(out.String(), "level=ERROR") {
				t.Error(out.String())
			}
		})
		return &editor{Registry: r, path: path}
	}, registrytest.Options{Lacks: map[string]string{
		"Expiry": timeless, "Renewal": timeless, "TTLChanges": timeless, "WatchExpiry": timeless,
	}})
}

const timeless = "what stands in a file has no time to live"

func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, "services: []")
	r, _ := open(t, path, "")
	s := registry.Service{Name: "a", Nodes: []registry.Node{{ID: "n", Address: "127.0.0.1", Port: 1}}}
	for what, err := range map[string]error{"Register": r.Register(t.Context(), s, 0), "Deregister": r.Deregister(t.Context(), s)} {
		if !errors.Is(err, registry.ErrReadOnly) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestForms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	write(t, path, `
services:
  - name: greeter
    version: 1.10
    metadata: {team: blue, size: 3, empty: }
    nodes:
      - 127.0.0.1:9090
      - "[::1]:9091"
      - unix:/run/app.sock
      - {id: b, address: 10.0.0.1, port: 80, metadata: {protocol: grpc}}
  - {Name: greeter, Version: "2", Endpoints: [{name: Say.Hello, request: {name: R, type: R}}], Nodes: [{Id: new, Address: "a.b:1"}]}
  - name: empty
    nodes: []
`)
	r, _ := open(t, path, "")
	if have := registrytest.Nodes(t.Context(), r, "greeter"); have != "b=10.0.0.1:80 greeter-127.0.0.1:9090=127.0.0.1:9090 "+
		"greeter-[::1]:9091=[::1]:9091 greeter-unix:/run/app.sock=unix:/run/app.sock new=a.b:1" {
		t.Errorf("nodes: %s", have)
	}
	services, err := r.Get(t.Context(), "greeter")
	if err != nil || len(services) != 2 || services[0].Version != "1.10" || services[0].Metadata["size"] != "3" ||
		services[0].Nodes[0].Metadata["protocol"] != "grpc" || services[1].Endpoints[0].Request.Type != "R" {
		t.Errorf("%+v, %v", services, err)
	}
	if services, err := r.Get(t.Context(), "empty"); err != nil || len(services) != 1 || len(services[0].Nodes) != 0 {
		t.Errorf("a service without nodes: %+v, %v", services, err)
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "got nothing",
		"services:\n  - nam: x\n    nodes: []": `line 2: unknown key "nam" in a service (did you mean name?)`,
		"service: []":                          `line 1: unknown key "service" in the file (did you mean services?)`,
		"services:\n- name: x":                 "line 2: nodes: expected a list",
		"services:\n- nodes: []":               "line 2: name: expected the service's name",
		"services:\n- name: x\n  nodes:\n  - addr: x":                                    `line 4: unknown key "addr" in a node`,
		"services:\n- name: x\n  nodes:\n  - 127.0.0.1":                                  "line 4: port: expected 1 to 65535, got none",
		"services:\n- name: x\n  nodes:\n  - 127.0.0.1:0":                                "line 4: port: expected 1 to 65535",
		"services:\n- name: x\n  nodes:\n  - 127.0.0.1:70000":                            "line 4: port: expected 1 to 65535",
		"services:\n- name: x\n  nodes:\n  - http://x":                                   "line 4: address: expected",
		"services:\n- name: x\n  nodes:\n  - {address: x, port: y}":                      "line 4: ",
		"services:\n- name: x\n  nodes:\n  - {dns: x}":                                   "line 4: dns: expected NAME:PORT",
		"services:\n- name: x\n  nodes:\n  - {dns: 1.2.3.4:1}":                           "write it as address",
		"services:\n- name: x\n  nodes:\n  - {srv: x:1}":                                 "line 4: srv: expected a name",
		"services:\n- name: x\n  nodes:\n  - {srv: x, dns: y:1}":                         "one of them",
		"services:\n- name: x\n  nodes:\n  - {id: x}":                                    "one of them",
		"services:\n- name: x\n  nodes:\n  - {srv: x, port: 1}":                          "port: expected none beside dns",
		"services:\n- name: x\n  nodes:\n  - 1.2.3.4:1\n  - 1.2.3.4:1":                   "line 5: id: expected an id of its own",
		"services:\n- name: x\n  nodes: []\n- name: x\n  nodes: []":                      "stands in line 2, too",
		"services:\n- name: x\n  name: y\n  nodes: []":                                   "line 3: name: expected it once, got it in line 2, too",
		"services:\n- name: &a x\n  version: *a\n  nodes: []":                            "line 3: expected a value, got an alias",
		"services:\n- name: x\n  metadata: [a]\n  nodes: []":                             "line 3: metadata: expected keys and values",
		"services:\n- name: x\n  metadata: {a: [b]}\n  nodes: []":                        "line 3: metadata.a: expected a text",
		"services:\n- name: x\n  endpoints: {a: b}\n  nodes: []":                         "line 3: Endpoints: expected",
		"services:\n- name: x\n  endpoints: [{name: a, request: {[a]: b}}]\n  nodes: []": "line 3: ",
		"services:\n- a\n b":     "line ",
		"services: {a: b}":       "line 1: services: expected a list",
		"\tservices: []":         "line 1",
		"- a":                    "line 1: expected the file as keys and values (services)",
		strings.Repeat("[", 200): "line",
		"services: " + strings.Repeat("[", 200) + strings.Repeat("]", 200): "nested at most",
	} {
		if err := static.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q:\n have %v\n want %s", text, err, want)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	write(t, good, "services: []")
	bad := filepath.Join(dir, "bad.yaml")
	write(t, bad, "services: x")
	for address, want := range map[string]string{
		"static://" + good:                            "",
		"static://" + good + "?nameserver=127.0.0.1":  "",
		"static://" + good + "?nameserver=[::1]:5353": "",
		"static://" + good + "?nameserver=example":    "nameserver: expected the IP address",
		"static://" + good + "?nameserve=127.0.0.1":   "did you mean nameserver?",
		"static://" + dir:                             "expected a file",
		"static:///nosuch.yaml":                       "no such file",
		"static://" + bad:                             bad + ": line 1: services: expected a list",
		"http://x" + good:                             "expected static:///PATH",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		err = static.CheckAddress(u)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if err := static.CheckAddress(nil); err == nil {
		t.Error("no address is taken")
	}
}

// Every way in which files are replaced.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	file := func(port string) string {
		return "services: [{name: a, nodes: [{id: n, address: '127.0.0.1:" + port + "'}]}]\n"
	}
	// As Kubernetes does it: services.yaml -> ..data/services.yaml, ..data -> a folder of a moment.
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	point := func(to string) {
		t.Helper()
		tmp := filepath.Join(dir, "..tmp")
		if err := errors.Join(os.Symlink(to, tmp), os.Rename(tmp, filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "one", "services.yaml"), file("1"))
	point("one")
	path := filepath.Join(dir, "services.yaml")
	if err := os.Symlink(filepath.Join("..data", "services.yaml"), path); err != nil {
		t.Fatal(err)
	}
	r, out := open(t, path, "")
	awaitNodes(t, r, "a", "n=127.0.0.1:1")

	write(t, filepath.Join(dir, "two", "services.yaml"), file("2"))
	point("two")
	awaitNodes(t, r, "a", "n=127.0.0.1:2")

	tmp := filepath.Join(dir, "x.swp")
	write(t, tmp, file("3"))
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
	awaitNodes(t, r, "a", "n=127.0.0.1:3")

	write(t, path, "services:\n- nam: a\n")
	registrytest.Eventually(t, func() string {
		if !strings.Contains(out.String(), "line 2: unknown key") {
			return "the log does not tell of the mistake: " + out.String()
		}
		return ""
	})
	if have := registrytest.Nodes(t.Context(), r, "a"); have != "n=127.0.0.1:3" {
		t.Errorf("after a mistake: %s", have)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	registrytest.Eventually(t, func() string {
		if !strings.Contains(out.String(), "cannot be read") {
			return "the log does not tell that the file is gone: " + out.String()
		}
		return ""
	})
	if have := registrytest.Nodes(t.Context(), r, "a"); have != "n=127.0.0.1:3" {
		t.Errorf("without a file: %s", have)
	}
	write(t, path, file("4"))
	awaitNodes(t, r, "a", "n=127.0.0.1:4")
	if n := strings.Count(out.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors:\n%s", n, out)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"services:\n- name: x\n  nodes: [127.0.0.1:1, {dns: x:1, id: y}, {srv: z}]", `{"services":[{"name":"x","nodes":[]}]}`,
		"services: [{name: x, endpoints: [{name: y}], metadata: {a: b}, nodes: []}]", "a: &a [*a]", "? [a]\n: b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := static.Parse(text); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
