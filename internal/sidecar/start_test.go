package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"

	"github.com/micro/sidecar/internal/testserver"
)

func TestMain(m *testing.M) {
	const certmagic = "github.com/caddyserver/certmagic."
	goleak.VerifyTestMain(m,
		// It never stops its limiter of requests, one for each authority, and what
		// keeps a lock fresh sleeps some seconds before it sees that it is gone.
		goleak.IgnoreAnyFunction(certmagic+"(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction(certmagic+"keepLockfileFresh"))
}

// running is a sidecar in this process, on memory engines.
type running struct {
	t        *testing.T
	url      string
	registry *memory.Registry
	log      *testserver.Output
	stop     context.CancelFunc
	ended    chan error
	trust    *x509.CertPool // with TLS
}

// testConfig is what cli makes when nothing is said, on a free port.
func testConfig() Config {
	return Config{
		Addresses:        []string{"127.0.0.1:0"},
		Namespace:        "go.micro.srv",
		Handler:          "rpc",
		Selector:         "p2c",
		RegisterTTL:      90 * time.Second,
		RegisterInterval: 30 * time.Second,
		Engines:          Engines{Registry: "memory", Broker: "memory", MaxBodySize: 1 << 20, Host: true},
		RequestTimeout:   5 * time.Second,
		ConnectTimeout:   5 * time.Second,
		Retries:          1,
		PoolSize:         64,
		MaxBodySize:      1 << 20,
		ShutdownGrace:    30 * time.Second,
	}
}

// run starts a sidecar and waits until it is ready; the test's end stops it.
func run(t *testing.T, change func(*Config)) *running {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	r := &running{t: t, registry: memory.New(), log: &testserver.Output{}, ended: make(chan error, 1)}
	engine := brokermemory.New()
	drivers := Drivers{
		Registries: map[string]func(context.Context, Env) (registry.Registry, error){
			"memory": func(context.Context, Env) (registry.Registry, error) { return r.registry, nil },
		},
		Brokers: map[string]func(context.Context, Env) (broker.Broker, error){
			"memory": func(context.Context, Env) (broker.Broker, error) { return engine, nil },
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		r.ended <- Run(ctx, cfg, drivers, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("the sidecar ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("the sidecar's log:\n%s", r.log)
		}
	})
	address := regexp.MustCompile(`address="?([0-9.:]+)`)
	eventually(t, "the sidecar is ready", func() bool {
		m := address.FindStringSubmatch(r.log.String())
		if m == nil {
			return false
		}
		r.url = "http://" + m[1]
		if cfg.TLS != nil {
			r.url, r.trust = "https://"+m[1], cfg.TLS.RootCAs
		}
		if cfg.ACME != nil { // there may be no certificate yet
			return strings.Contains(r.log.String(), "msg=ready")
		}
		status, _ := r.try(http.MethodGet, "/readyz", "", "")
		return status == 200
	})
	return r
}

// end stops the sidecar and returns what Run did.
func (r *running) end() error {
	r.stop()
	err := <-r.ended
	r.ended <- nil
	return err
}

// try sends a request and returns status and body; 0 without an answer.
func (r *running) try(method, path, contentType, body string, header ...string) (int, string) {
	status, text, _ := r.full(method, path, contentType, body, header...)
	return status, text
}

func (r *running) full(method, path, contentType, body string, header ...string) (int, string, http.Header) {
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: r.trust}}, Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return resp.StatusCode, string(b), resp.Header
}

// expect sends a request and requires status and, unless "", the body.
func (r *running) expect(status int, want, method, path, contentType, body string, header ...string) {
	r.t.Helper()
	got, text := r.try(method, path, contentType, body, header...)
	if got != status || want != "" && text != want {
		r.t.Errorf("%s %s %s\n got %d %s\nwant %d %s", method, path, body, got, text, status, want)
	}
}

// refused requires a refusal in go-micro's form, with a detail that has part in it.
func (r *running) refused(status int, part, method, path, contentType, body string, header ...string) {
	r.t.Helper()
	got, text, h := r.full(method, path, contentType, body, header...)
	var e struct {
		ID, Detail, Status string
		Code               int
	}
	err := json.Unmarshal([]byte(text), &e)
	if got != status || err != nil || e.Code != status || e.ID != "go.micro.sidecar" ||
		e.Status != http.StatusText(status) || !strings.Contains(e.Detail, part) || h.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %s %.200s\n got %d %s\nwant %d with %q", method, path, body, got, text, status, part)
	}
}

// node is a JSON-RPC server as a Python or Ruby program would write it; it
// answers what it was asked.
func node(t *testing.T, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			Method string
			Params []json.RawMessage
			ID     any
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Node-Secret", "not for clients")
		if err := json.Unmarshal(body, &call); err != nil || len(call.Params) != 1 {
			fmt.Fprintf(w, `{"id":0,"error":"bad call","result":null}`)
			return
		}
		fmt.Fprintf(w, `{"id":%v,"error":null,"result":{"node":%q,"method":%q,"got":%s}}`, call.ID, name, call.Method, call.Params[0])
	}))
	t.Cleanup(s.Close)
	return s
}

// register puts a server's address into the registry through the sidecar.
func (r *running) register(name, id string, s *httptest.Server, metadata string) {
	r.t.Helper()
	if metadata == "" {
		metadata = "{}"
	}
	body := fmt.Sprintf(`{"Name":%q,"Nodes":[{"Id":%q,"Address":%q,"Metadata":%s}]}`, name, id, s.Listener.Addr(), metadata)
	r.expect(200, "", http.MethodPost, "/registry", "application/json", body)
}

// eventually polls until ok, for what has no event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never came true: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
