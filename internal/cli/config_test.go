package cli

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/certs"
	"github.com/micro/sidecar/internal/testserver"
)

// config returns what micro sidecar makes of its settings.
func config(t *testing.T, env []string, args ...string) *Config {
	t.Helper()
	i, err := understood(t, sidecarCommand(), env, args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.cfg.finishSidecar(i.given); err != nil {
		t.Fatal(err)
	}
	return i.cfg
}

// configFile writes a configuration file and returns the flag for it.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "micro.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config=" + path
}

func TestDefaults(t *testing.T) {
	c := config(t, nil)
	s := c.Sidecar
	for name, pair := range map[string][2]any{
		"address":                {s.Addresses, []string{"127.0.0.1:8081", "[::1]:8081"}},
		"namespace":              {s.Namespace, "go.micro.srv"},
		"handler":                {s.Handler, "rpc"},
		"selector":               {s.Selector, "p2c"},
		"healthcheck_interval":   {s.Healthcheck.Interval, 5 * time.Second},
		"healthcheck_timeout":    {s.Healthcheck.Timeout, 2 * time.Second},
		"healthcheck_fall":       {s.Healthcheck.Fall, 1},
		"healthcheck_rise":       {s.Healthcheck.Rise, 1},
		"register_ttl":           {s.RegisterTTL, 90 * time.Second},
		"register_interval":      {s.RegisterInterval, 30 * time.Second},
		"client_request_timeout": {s.RequestTimeout, 5 * time.Second},
		"client_retries":         {s.Retries, 1},
		"drain_delay":            {s.DrainDelay, time.Second},
		"shutdown_grace":         {s.ShutdownGrace, 10 * time.Second},
		"max_body_size":          {s.MaxBodySize, int64(4 << 20)},
		"engines' body size":     {s.Engines.MaxBodySize, int64(4 << 20)},
		"engine_address":         {s.Engines.EngineAddress, "127.0.0.1:0"},
		"registry":               {s.Engines.Registry, ""},
		"broker":                 {s.Engines.Broker, ""},
		"enable_stats":           {s.EnableStats, false},
		"app":                    {s.App.Name, ""},
		"cors":                   {len(s.CORS), 0},
		"output":                 {c.Output, "text"},
		"log_level":              {c.LogLevel, (*slog.Level)(nil)},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
}

// Flag before environment before file before default; MICRO_NAME before the
// older variable.
func TestPrecedence(t *testing.T) {
	file := configFile(t, "namespace: file\n")
	older, newer := "MICRO_SIDECAR_NAMESPACE=older", "MICRO_NAMESPACE=newer"
	tests := []struct {
		args []string
		env  []string
		want string
	}{
		{nil, nil, "go.micro.srv"},
		{[]string{file}, nil, "file"},
		{[]string{file}, []string{older}, "older"},
		{[]string{file}, []string{older, newer}, "newer"},
		{[]string{file}, []string{newer, older}, "newer"},
		{[]string{file, "--namespace=flag"}, []string{older, newer}, "flag"},
		{[]string{file, "--sidecar_namespace=flag"}, []string{newer}, "flag"},
		{[]string{"--namespace=one", "--namespace=two"}, nil, "two"},
		{nil, []string{"MICRO_NAMESPACE="}, "go.micro.srv"},
		{nil, []string{strings.Replace(file, "--config", "MICRO_CONFIG", 1)}, "file"},
		{[]string{"--namespace="}, []string{newer}, ""},
	}
	for _, test := range tests {
		if got := config(t, test.env, test.args...).Sidecar.Namespace; got != test.want {
			t.Errorf("%v with %v: %q, want %q", test.args, test.env, got, test.want)
		}
	}
}

// Each setting arrives from each place: the table has no line that says one
// thing and sets another.
func TestEverySettingFromEveryPlace(t *testing.T) {
	authority := testserver.NewAuthority(t)
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("alice:secret-of-alice\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"auth_token_file": tokens,
		"enable_tls":      "true", "tls_cert_file": cert, "tls_key_file": key, "tls_client_ca_file": authority.File,
		"address": "0.0.0.0:8081,[::1]:9,unix:/run/micro.sock", "namespace": "ns", "handler": "proxy", "cors": "https://a.example,https://b.example",
		"allowed_hosts": "a.example,b.example", "guard_proxy": "true", "enable_stats": "true", "rpc_any_address": "true",
		"server_name": "foo", "server_address": "127.0.0.1:9090", "server_advertise": "10.0.0.1:9091",
		"server_version": "1.2", "server_id": "foo-1", "server_metadata": "a=b,c=d=e",
		"healthcheck_url": "http://127.0.0.1:9090/health", "healthcheck_interval": "7s", "healthcheck_timeout": "3s",
		"healthcheck_fall": "4", "healthcheck_rise": "5", "healthcheck_startup_grace": "6s", "register_ttl": "60", "register_interval": "20",
		"client_connect_timeout": "3s", "client_try_timeout": "4s", "max_concurrency": "100", "max_connections": "1000",
		"selector": "hash:X-User", "client_retries": "3", "client_pool_size": "9", "max_body_size": "1MiB",
		"drain_delay": "2s", "shutdown_grace": "8s", "registry": "consul", "registry_address": "10.0.0.2:8500",
		"broker": "http", "broker_address": "10.0.0.3:8000", "data_dir": "state", "engine_address": "127.0.0.1:4222",
		"admin_address": "0.0.0.0:8082", "access_log": "access.log", "access_log_format": "combined", "access_log_slow": "500ms",
		"subscribe": "topic=orders,queue=billing,path=/events", "broker_max_bytes": "100GiB", "engine_sync": "always",
		"client_request_timeout": "9s", "log_level": "debug", "log_format": "json",
	}
	// What is for other commands, the file itself, and ACME, which takes the
	// place of certificates in files, see TestACME.
	notSidecars := []string{
		"proxy_address", "token_file", "ca_file", "client_cert_file", "client_key_file", "output", "config",
		"enable_acme", "acme_hosts", "acme_ca", "acme_ca_root", "acme_email", "acme_cache", "acme_http_address",
	}
	var args, env []string
	var file strings.Builder
	for _, s := range settingsTable() {
		value, ok := values[s.name]
		if !ok {
			if !slices.Contains(notSidecars, s.name) {
				t.Errorf("%s is not tested", s.name)
			}
			continue
		}
		if slices.Contains([]string{s.def, s.note}, value) {
			t.Errorf("%s is tested with its default", s.name)
		}
		args = append(args, "--"+s.name+"="+value)
		env = append(env, envName(s.name)+"="+value)
		fmt.Fprintf(&file, "%s: %q\n", s.name, value)
	}
	want := config(t, nil, args...)
	for name, got := range map[string]*Config{
		"environment": config(t, env),
		"file":        config(t, nil, configFile(t, file.String())),
	} {
		got.File = ""
		if made := got.Sidecar.TLS; made == nil || made.ClientAuth != tls.RequireAndVerifyClientCert {
			t.Errorf("from the %s: TLS is %v", name, made)
		}
		if _, ok := got.Sidecar.Tokens.Check("secret-of-alice"); !ok {
			t.Errorf("from the %s: the tokens are others", name)
		}
		// Pools of certificates and what tokens are kept in cannot be compared.
		got.Sidecar.TLS, got.Sidecar.Tokens = want.Sidecar.TLS, want.Sidecar.Tokens
		got.Sidecar.Certificates = want.Sidecar.Certificates
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from the %s:\n%+v\nfrom flags:\n%+v", name, got, want)
		}
	}
	app := want.Sidecar.App
	if app.Name != "foo" || app.Address != "127.0.0.1:9090" || app.Host != "10.0.0.1" || app.Port != 9091 ||
		app.ID != "foo-1" || app.Version != "1.2" || !reflect.DeepEqual(app.Metadata, map[string]string{"a": "b", "c": "d=e"}) {
		t.Errorf("the application is %+v", app)
	}
	none := config(t, nil)
	flat, plain := reflect.ValueOf(want.Sidecar), reflect.ValueOf(none.Sidecar)
	for n := range flat.NumField() {
		// One stands in the file alone, one is no setting, one has a test of its own.
		name := flat.Type().Field(n).Name
		if name == "Applications" || name == "Control" || name == "ACME" {
			continue
		}
		if reflect.DeepEqual(flat.Field(n).Interface(), plain.Field(n).Interface()) {
			t.Errorf("no setting changes %s", flat.Type().Field(n).Name)
		}
	}
}

// ACME's settings arrive from each place, too.
func TestACME(t *testing.T) {
	authority := testserver.NewAuthority(t)
	cache := filepath.Join(t.TempDir(), "made", "when", "needed")
	values := [][2]string{
		{"enable_acme", "true"}, {"acme_hosts", "a.example,B.example"}, {"acme_ca", "https://ca.example/dir"}, {"acme_ca_root", authority.File},
		{"acme_email", "ops@example.com"}, {"acme_cache", cache}, {"acme_http_address", "127.0.0.1:8080"},
	}
	var args, env []string
	var file strings.Builder
	for _, v := range values {
		args = append(args, "--"+v[0]+"="+v[1])
		env = append(env, envName(v[0])+"="+v[1])
		fmt.Fprintf(&file, "%s: %q\n", v[0], v[1])
	}
	for name, c := range map[string]*Config{
		"flags": config(t, nil, args...), "environment": config(t, env), "file": config(t, nil, configFile(t, file.String())),
	} {
		if !slices.Equal(c.Sidecar.Addresses, []string{":443"}) {
			t.Errorf("from %s: it listens on %v", name, c.Sidecar.Addresses)
		}
		if err := c.finishACME(nil, ""); err != nil {
			t.Fatal(err)
		}
		got := *c.Sidecar.ACME
		if !got.Roots.Equal(authority.Pool) {
			t.Errorf("from %s: the roots are others", name)
		}
		got.Roots = nil
		want := certs.ACMEOptions{
			Hosts: []string{"a.example", "b.example"}, CA: "https://ca.example/dir", Email: "ops@example.com",
			Cache: cache, HTTPAddress: "127.0.0.1:8080",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from %s: %+v", name, got)
		}
	}
	standard := config(t, nil, "--enable_acme", "--address=127.0.0.1:8443")
	dir := t.TempDir()
	if err := standard.finishACME(nil, dir); err != nil {
		t.Fatal(err)
	}
	if got := standard.Sidecar.ACME; got.HTTPAddress != ":80" || got.Cache != filepath.Join(dir, "acme") || !slices.Equal(standard.Sidecar.Addresses, []string{"127.0.0.1:8443"}) {
		t.Errorf("without more: %+v on %v", got, standard.Sidecar.Addresses)
	}
}

func TestOlderEnvironment(t *testing.T) {
	c := config(t, []string{
		"MICRO_SIDECAR_ADDRESS=:8082", "MICRO_SIDECAR_CORS=*", "MICRO_SIDECAR_HANDLER=web", "MICRO_SIDECAR_NAMESPACE=ns",
		"MICRO_SIDECAR_SERVER_NAME=foo", "MICRO_SIDECAR_SERVER_ADDRESS=[::1]:9090",
		"MICRO_SIDECAR_HEALTHCHECK_URL=http://localhost:9090/health",
	}).Sidecar
	if !slices.Equal(c.Addresses, []string{":8082"}) || !slices.Equal(c.CORS, []string{"*"}) || c.Handler != "proxy" ||
		c.Namespace != "ns" || c.App.Name != "foo" || c.App.Host != "::1" || c.App.Port != 9090 ||
		c.Healthcheck.URL != "http://localhost:9090/health" {
		t.Errorf("got %+v", c)
	}
}

// One duration that was given moves the default of the other.
func TestDurationsThatFollow(t *testing.T) {
	c := config(t, nil, "--register_ttl=9", "--shutdown_grace=400ms").Sidecar
	if c.RegisterInterval != 3*time.Second || c.DrainDelay != 100*time.Millisecond {
		t.Errorf("interval %s, delay %s", c.RegisterInterval, c.DrainDelay)
	}
	c = config(t, nil, "--register_ttl=1m30s", "--register_interval=1m").Sidecar
	if c.RegisterTTL != 90*time.Second || c.RegisterInterval != time.Minute {
		t.Errorf("ttl %s, interval %s", c.RegisterTTL, c.RegisterInterval)
	}
}

// An address without a name says which engine is meant.
func TestEngineFromAddress(t *testing.T) {
	tests := []struct{ flag, registry, broker string }{
		{"--registry_address=127.0.0.1:8500", "consul", ""},
		{"--registry_address=embedded://x", "embedded", ""},
		{"--registry_address=http://127.0.0.1:8500", "consul", ""},
		{"--broker_address=http://127.0.0.1:9", "", "http"},
	}
	for _, test := range tests {
		e := config(t, nil, test.flag).Sidecar.Engines
		if e.Registry != test.registry || e.Broker != test.broker {
			t.Errorf("%s: %q and %q", test.flag, e.Registry, e.Broker)
		}
	}
}

// A flag of another command, or of go-micro, is accepted with one warning.
func TestFlagsWithoutMeaning(t *testing.T) {
	got := micro(t, someDrivers(t), []string{"MICRO_TRANSPORT=http"},
		"--client=rpc", "--enable_stats", "--server", "rpc", "version", "--client_pool_ttl=1m")
	want := "micro: --client, --server, --client_pool_ttl, MICRO_TRANSPORT, --enable_stats: no meaning for micro version, ignored\n"
	if got.status != exitOK || got.err != want {
		t.Errorf("status %d, stderr %q, want %q", got.status, got.err, want)
	}
}

// The sidecar's variables are not the commands': a mistake in them stops none.
func TestForeignEnvironment(t *testing.T) {
	i, err := understood(t, callCommand(), []string{"MICRO_ADDRESS=nonsense", "MICRO_TTL=x", "MICRO_TIMEOUT=7s", "MICRO_REGISTRY=consul"}, "s", "m")
	if err != nil {
		t.Fatal(err)
	}
	if i.cfg.nodeAddress != (hostPort{}) || i.cfg.Sidecar.Engines.Registry != "consul" || i.cfg.Sidecar.RequestTimeout != 7*time.Second {
		t.Errorf("got %+v", i.cfg)
	}
}

func TestDataDir(t *testing.T) {
	state, home := t.TempDir(), t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		env  []string
		args []string
		want string
	}{
		{[]string{"HOME=" + home}, nil, filepath.Join(home, ".local", "state", "micro")},
		{[]string{"HOME=" + home, "XDG_STATE_HOME=" + state}, nil, filepath.Join(state, "micro")},
		{[]string{"HOME=" + home, "XDG_STATE_HOME=relative"}, nil, filepath.Join(home, ".local", "state", "micro")},
		{[]string{"HOME=" + home, "MICRO_DATA_DIR=d"}, nil, filepath.Join(here, "d")},
		{[]string{"HOME=" + home, "MICRO_DATA_DIR=d"}, []string{"--data_dir=e"}, filepath.Join(here, "e")},
		{nil, nil, ""},
	}
	for _, test := range tests {
		i, err := understood(t, sidecarCommand(), test.env, test.args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := i.dataDir(); got != test.want {
			t.Errorf("%v %v: %q, want %q", test.env, test.args, got, test.want)
		}
	}
}

func TestUsableDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	usable, remove, err := usableDir(dir)
	if err != nil || usable != dir {
		t.Fatalf("%q, %v", usable, err)
	}
	remove()
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the user's folder was removed: %v", err)
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	usable, remove, err = usableDir(filepath.Join(file, "sub"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(usable); err != nil || strings.HasPrefix(usable, file) {
		t.Errorf("temporary folder %q: %v", usable, err)
	}
	remove()
	if _, err := os.Stat(usable); !os.IsNotExist(err) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
}
