package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/micro/sidecar/internal/testserver"
)

// Every mistake in use is one line on stderr that says what was wrong, exit
// status 2, and nothing is started or printed.
func TestMistakes(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "micro.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority := testserver.NewAuthority(t)
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	_, otherKey := authority.Issue(time.Now().Add(time.Hour))
	oldCert, oldKey := authority.Issue(time.Now().Add(-time.Minute))
	newCert, newKey := authority.Issue(time.Now().Add(3 * time.Hour)) // it lives for two
	tests := []struct {
		line string // split at spaces
		env  string
		want string
	}{
		{"", "", "a command is missing"},
		{"lst services", "", `unknown command "lst" (did you mean list?)`},
		{"registry", "", "micro registry --help"},
		{"help sidecra", "", "did you mean sidecar?"},
		{"help registry lits", "", "did you mean list?"},
		{"registry lits services", "", "did you mean list?"},
		{"sidecar extra", "", `unexpected argument "extra"`},
		{"sidecar --", "", "a command is missing after --"},
		{"sidecar extra -- app", "", `unexpected argument "extra"`},
		{"sidecar --server_name=foo -- app", "", "--server_name needs --server_address"},
		{"completion", "", "SHELL is missing"},
		{"completion tcsh", "", "bash, zsh, fish or powershell"},

		// Arguments.
		{"list", "", "services is missing"},
		{"list nodes", "", `expected "services", not "nodes"`},
		{"get service", "", "NAME is missing"},
		{"get service a b", "", `unexpected argument "b"`},
		{"register service", "", "JSON is missing"},
		{"register service {", "", "JSON"},
		{`register service {"name":"x"}`, "", "Nodes"},
		{"deregister service []", "", "expected"},
		{"call", "", "SERVICE is missing"},
		{"query greeter", "", "METHOD is missing"},
		{"call greeter Say.Hello {", "", "no JSON"},
		{"call greeter Say.Hello --address=nowhere", "", "--address"},
		{"call greeter Say.Hello --timeout=0s", "", "--timeout"},
		{"health", "", "SERVICE is missing"},
		{"stats", "", "SERVICE is missing"},
		{"publish", "", "TOPIC is missing"},
		{"publish t b --header=x", "", "name=value"},
		{"publish t b --header=a:b=x", "", "name=value"},
		{"subscribe", "", "TOPIC is missing"},
		{"watch nodes", "", `expected "services"`},
		{"version now", "", `unexpected argument "now"`},

		// Flags.
		{"--foo sidecar", "", "unknown flag --foo"},
		{"sidecar --server-name=x", "", "unknown flag --server-name (did you mean --server_name?)"},
		{"sidecar -registry=consul", "", "unknown flag -registry (did you mean --registry?)"},
		{"sidecar --regstry=consul", "", "did you mean --registry?"},
		{"publish t -body", "", "unknown flag -body; -- stands before"},
		{"sidecar --handler", "", "--handler needs a value"},
		{"sidecar --enable_stats=perhaps", "", "true or false"},
		{"sidecar --handler=soap", "", "rpc or proxy"},
		{"sidecar --selector=best", "", "p2c, roundrobin, leastrequest, random, hash or hash:HEADER"},
		{"sidecar --selector=hash:", "", "the name of a header field"},
		{"sidecar --selector=hash:X(User", "", "the name of a header field"},
		{"sidecar --selector=p2c:X-User", "", "the name of a header field"},
		{"sidecar --log_level=loud", "", "debug, info, warn or error"},
		{"sidecar --log_format=xml", "", "text or json"},
		{"list services --output=xml", "", "text or json"},
		{"list services --proxy_address=8081", "", "--proxy_address"},
		{"list services --proxy_address=ftp://x", "", "http or https URL"},
		{"list services --proxy_address=http://u:p@x", "", "without user"},
		{"sidecar --address=8081", "", "HOST:PORT"},
		{"sidecar --address=127.0.0.1:70000", "", "HOST:PORT"},
		{"sidecar --address=127.0.0.1:8081,::1", "", "HOST:PORT"},
		{"sidecar --sidecar_address=x", "", "--sidecar_address"},
		{"sidecar --engine_address=localhost", "", "HOST:PORT"},
		{"sidecar --registry=zookeeper", "", "which knows consul, embedded"},
		{"sidecar --broker=kafka", "", "which knows embedded, http"},
		{"sidecar --broker_address=127.0.0.1:4222", "", "needs --broker"},
		{"sidecar --registry_address=127.0.0.1:x", "", "HOST:PORT or a URL"},
		{"sidecar --client_request_timeout=5", "", "a duration such as"},
		{"sidecar --client_request_timeout=0s", "", "longer than zero"},
		{"sidecar --client_request_timeout=-1s", "", "not a negative one"},
		{"sidecar --client_retries=-1", "", "a number from 0"},
		{"sidecar --client_pool_size=0", "", "a number from 1"},
		{"sidecar --max_body_size=4XB", "", "a size"},
		{"sidecar --max_body_size=0", "", "a size"},
		{"sidecar --max_body_size=9999999999999999999", "", "a size"},
		{"sidecar --shutdown_grace=0s", "", "longer than zero"},
		{"sidecar --drain_delay=10s --shutdown_grace=10s", "", "not shorter than shutdown_grace"},
		{"sidecar --cors=example.com", "", "an origin such as"},
		{"sidecar --cors=https://example.com/path", "", "an origin such as"},
		{"sidecar --allowed_hosts=example.com:80", "", "without a port"},
		{"sidecar --config=/nonexistent/micro.yaml", "", "no such file"},

		{"sidecar --address=unix:relative.sock", "", "unix:/PATH"},
		{"sidecar --address=unix:", "", "unix:/PATH"},
		{"sidecar --address=unix:/run/", "", "unix:/PATH"},
		{"sidecar --engine_address=unix:/run/x", "", "HOST:PORT"},
		{"list services --proxy_address=unix:x", "", "unix:/PATH"},

		// TLS.
		{"sidecar --enable_tls", "", "--enable_tls needs --tls_cert_file"},
		{"sidecar", "MICRO_ENABLE_TLS=true", "MICRO_ENABLE_TLS needs --tls_cert_file"},
		{"sidecar --enable_tls --tls_cert_file=" + cert, "", "--enable_tls needs --tls_key_file"},
		{"sidecar --tls_cert_file=" + cert, "", "--tls_cert_file needs --enable_tls"},
		{"sidecar --tls_client_ca_file=" + cert, "", "--tls_client_ca_file needs --enable_tls"},
		{"sidecar --enable_tls --tls_cert_file=/nonexistent --tls_key_file=" + key, "", "--tls_cert_file: open /nonexistent: no such file"},
		{"sidecar --enable_tls --tls_cert_file=" + cert + " --tls_key_file=/nonexistent", "", "--tls_key_file: open /nonexistent: no such file"},
		{"sidecar --enable_tls --tls_cert_file=" + cert + " --tls_key_file=" + otherKey, "", "private key does not match public key"},
		{"sidecar --enable_tls --tls_cert_file=" + key + " --tls_key_file=" + key, "", "--tls_cert_file " + key},
		{"sidecar --enable_tls --tls_cert_file=" + oldCert + " --tls_key_file=" + oldKey, "", "the certificate expired at "},
		{"sidecar --enable_tls --tls_cert_file=" + newCert + " --tls_key_file=" + newKey, "", "the certificate is not valid before "},
		{"sidecar --enable_tls --tls_cert_file=" + cert + " --tls_key_file=" + key + " --tls_client_ca_file=" + key, "", "no certificate in PEM form is in it"},

		// ACME.
		{"sidecar --acme_hosts=example.com", "", "--acme_hosts needs --enable_acme"},
		{"sidecar", "MICRO_ACME_CACHE=/tmp/x", "MICRO_ACME_CACHE needs --enable_acme"},
		{"sidecar --enable_acme --enable_tls --tls_cert_file=" + cert + " --tls_key_file=" + key, "", "from files or by ACME, not both"},
		{"sidecar --enable_acme --acme_hosts=*.example.com", "", "DNS-01"},
		{"sidecar --enable_acme --acme_hosts=example.com:443", "", "without a port"},
		{"sidecar --enable_acme --acme_ca=http://ca.example/dir", "", "https URL of an ACME directory"},
		{"sidecar --enable_acme --acme_ca_root=/nonexistent", "", "--acme_ca_root: open /nonexistent: no such file"},
		{"sidecar --enable_acme --acme_ca_root=" + key, "", "no certificate in PEM form is in it"},
		{"sidecar --enable_acme --acme_email=ops", "", "an address such as"},
		{"sidecar --enable_acme --acme_cache=" + cert, "", "is not writable"},
		{"sidecar --enable_acme --acme_http_address=80", "", "HOST:PORT"},

		// The application.
		{"sidecar --server_name=foo", "", "--server_name needs --server_address"},
		{"sidecar --server_address=127.0.0.1:9090", "", "--server_address needs --server_name"},
		{"sidecar --server_version=1", "", "--server_version needs --server_name"},
		{"sidecar --server_name=foo --server_address=127.0.0.1", "", "HOST:PORT"},
		{"sidecar --server_name=foo --server_address=:9090", "", "HOST:PORT"},
		{"sidecar --server_name=foo --server_address=127.0.0.1:0", "", "HOST:PORT"},
		{"sidecar --server_name=foo --server_address=127.0.0.1:1 --server_metadata=x", "", "key=value"},
		{"sidecar --healthcheck_url=127.0.0.1:9090/health", "", "http or https URL"},
		{"sidecar --healthcheck_url=http://127.0.0.1:0/", "", "http or https URL"},
		{"sidecar --healthcheck_url=unix:/run/app.sock", "", "http or https URL"},
		{"sidecar --healthcheck_url=http://unix:run/app.sock:/health", "", "http or https URL"},
		{"sidecar --healthcheck_url=http://unix:/run/:/health", "", "http://unix:/PATH:/URL"},
		{"sidecar --healthcheck_url=http://unix:/run/app.sock:/%zz", "", "http://unix:/PATH:/URL"},
		{"sidecar --healthcheck_url=tcp://127.0.0.1", "", "tcp://HOST:PORT"},
		{"sidecar --healthcheck_url=tcp://127.0.0.1:9090/health", "", "tcp://HOST:PORT"},
		{"sidecar --healthcheck_startup_grace=-1s", "", "not a negative one"},
		{"sidecar", "NOTIFY_SOCKET=relative", "NOTIFY_SOCKET"},
		{"sidecar --healthcheck_interval=0s", "", "longer than zero"},
		{"sidecar --healthcheck_timeout=x", "", "a duration such as"},
		{"sidecar --healthcheck_fall=0", "", "a number from 1"},
		{"sidecar --healthcheck_rise=1.5", "", "a number from 1"},
		{"sidecar --register_ttl=0", "", "a number of seconds"},
		{"sidecar --register_ttl=500ms", "", "a number of seconds"},
		{"sidecar --register_ttl=10 --register_interval=10", "", "not shorter than register_ttl"},
		{"register service {} --ttl=10", "", "--ttl"},

		// What this version lacks is refused, not ignored.
		{"sidecar --auth_token_file=/nonexistent/tokens", "", "--auth_token_file: open /nonexistent/tokens: no such file"},
		{"sidecar --auth_token_file=" + file("# nobody\n"), "", "micro.yaml:1: there is no token"},
		{"list services --proxy_address=127.0.0.1:1 --token_file=/nonexistent/token", "", "--token_file: open /nonexistent/token: no such file"},
		{"list services --proxy_address=127.0.0.1:1 --ca_file=/nonexistent/ca.pem", "", "--ca_file: open /nonexistent/ca.pem: no such file"},
		{"list services --proxy_address=127.0.0.1:1 --client_cert_file=c.pem", "", "--client_cert_file needs --client_key_file"},
		{"list services --proxy_address=127.0.0.1:1 --client_key_file=k.pem", "", "--client_key_file needs --client_cert_file"},
		{"sidecar --subscribe topic=a,path=/b", "", "--subscribe: \"topic=a,path=/b\": expected topic=TOPIC and queue=QUEUE"},
		{"sidecar --subscribe topic=a,queue=q,path=/b", "", "--subscribe: path=/b needs --server_name and --server_address"},
		{"sidecar --subscribe topic=a,queue=q", "", "expected path=/PATH of the application, or url=URL"},
		{"sidecar --engine_sync=soon", "", "--engine_sync"},
		{"subscribe news --ack", "", "--ack needs --queue"},
		{"queue", "", "a command is missing; micro queue --help lists them"},
		{"queue show orders", "", "QUEUE is missing; usage: micro queue show TOPIC QUEUE"},
		{"dead drop orders", "", "which dead letters: an ID, or --all"},
		{"list services --proxy_address=127.0.0.1:1", "MICRO_CA_FILE=/nonexistent/ca.pem", "MICRO_CA_FILE: open /nonexistent/ca.pem: no such file"},

		// Environment and file name themselves.
		{"sidecar", "MICRO_REGISTER_TTL=soon", "MICRO_REGISTER_TTL: \"soon\""},
		{"sidecar", "MICRO_SIDECAR_HANDLER=soap", "MICRO_SIDECAR_HANDLER: \"soap\""},
		{"sidecar", "MICRO_SIDECAR_SERVER_NAME=foo", "MICRO_SIDECAR_SERVER_NAME needs --server_address"},
		{"sidecar --register_ttl=5", "MICRO_REGISTER_TTL=soon", "MICRO_REGISTER_TTL"},
		{"sidecar", "MICRO_CONFIG=/nonexistent/micro.yaml", "no such file"},
		{"sidecar --config=" + file("handler: rpc\nhandlr: proxy\n"), "", ":2: unknown setting \"handlr\" (did you mean handler?)"},
		{"sidecar --config=" + file("register_ttl: soon\n"), "", ":1: register_ttl: \"soon\""},
		{"list services --config=" + file("register_ttl: soon\n"), "", ":1: register_ttl: \"soon\""},
		{"sidecar --config=" + file("config: other.yaml\n"), "", ":1: unknown setting \"config\""},
		{"sidecar --config=" + file("ttl: 5s\n"), "", ":1: unknown setting \"ttl\""},
		{"sidecar --config=" + file("handler: [\n"), "", "micro.yaml:"},
		{"sidecar --config=" + t.TempDir(), "", "is a directory"},
	}
	for _, test := range tests {
		t.Run(test.line+" "+test.env, func(t *testing.T) {
			got := micro(t, someDrivers(t), []string{test.env}, strings.Fields(test.line)...)
			if got.status != exitUsage {
				t.Errorf("exit status %d, want %d", got.status, exitUsage)
			}
			if got.out != "" {
				t.Errorf("stdout has %q", got.out)
			}
			if !strings.HasPrefix(got.err, "micro: ") || strings.Count(got.err, "\n") != 1 || !strings.HasSuffix(got.err, "\n") {
				t.Errorf("stderr is not one line: %q", got.err)
			}
			if !strings.Contains(got.err, test.want) {
				t.Errorf("stderr is %q, want %q in it", got.err, test.want)
			}
		})
	}
}

// The help of every command has examples and fits a terminal.
func TestHelpFits(t *testing.T) {
	var commands []string
	for line := range strings.Lines(works(t, someDrivers(t), nil, "--help")) {
		if name, ok := strings.CutPrefix(line, "  "); ok && name[0] != ' ' {
			commands = append(commands, strings.Fields(name)[0])
		}
	}
	for _, name := range append(commands, "config check", "config show", "") {
		text := works(t, someDrivers(t), nil, append(strings.Fields(name), "--help")...)
		if len(commands) < 15 || !strings.Contains(text, "\nCommands:\n") && !strings.Contains(text, "\nExamples:\n  ") {
			t.Errorf("%d commands; no examples for %q", len(commands), name)
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s: too long for a terminal: %s", name, line)
			}
		}
	}
}

// An argument that is there but empty is as good as missing.
func TestEmptyArgument(t *testing.T) {
	got := micro(t, someDrivers(t), nil, "get", "service", "")
	if got.status != exitUsage || !strings.Contains(got.err, "NAME is missing") {
		t.Errorf("status %d, stderr %q", got.status, got.err)
	}
}

func TestHelp(t *testing.T) {
	tests := []struct {
		args []string
		want []string
		not  string
	}{
		{[]string{"--help"}, []string{"sidecar", "publish TOPIC", "MICRO_NAME"}, "--register_ttl"},
		{[]string{"help"}, []string{"sidecar", "publish TOPIC"}, "--register_ttl"},
		{[]string{"sidecar", "--help"}, []string{"--register_ttl SECONDS", "[90]", "The application:"}, "--proxy_address"},
		{[]string{"call", "-h"}, []string{"--address HOST:PORT", "the node to call", "--proxy_address"}, "--healthcheck_url"},
		{[]string{"--help", "subscribe"}, []string{"--queue NAME"}, "--healthcheck_url"},
		{[]string{"help", "registry", "get"}, []string{"get service NAME"}, "--healthcheck_url"},
		{[]string{"help", "subscribe"}, []string{"--queue NAME", "base64"}, "--healthcheck_url"},
		{[]string{"registry", "--help"}, []string{"list services"}, "--registry"},
	}
	for _, test := range tests {
		got := micro(t, someDrivers(t), nil, test.args...)
		if got.status != exitOK || got.err != "" {
			t.Errorf("%v: status %d, stderr %q", test.args, got.status, got.err)
		}
		for _, want := range test.want {
			if !strings.Contains(got.out, want) {
				t.Errorf("%v: %q is not in the help:\n%s", test.args, want, got.out)
			}
		}
		if strings.Contains(got.out, test.not) {
			t.Errorf("%v: %q is in the help", test.args, test.not)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		got := micro(t, someDrivers(t), nil, arg)
		if got.status != exitOK || !strings.HasPrefix(got.out, "micro "+version+" ") || got.err != "" {
			t.Errorf("%s: %+v", arg, got)
		}
	}
}

func TestVersionAsJSON(t *testing.T) {
	var b buildInfo
	if err := json.Unmarshal([]byte(works(t, someDrivers(t), nil, "version", "--output=json")), &b); err != nil || b != build() {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		got := micro(t, someDrivers(t), nil, "completion", shell)
		if got.status != exitOK || !strings.Contains(got.out, "micro") || got.err != "" {
			t.Errorf("%s: status %d, stderr %q, %d bytes", shell, got.status, got.err, len(got.out))
		}
	}
	d, env := inMemory(t)
	works(t, d, env, "register", "service", `{"name":"greeter","endpoints":[{"name":"Say.Hello"}],"nodes":[{"id":"1","address":"127.0.0.1:1"}]}`)
	for line, want := range map[string]string{
		"sidecar --handler ":              "rpc proxy",
		"get ":                            "service",
		"get service ":                    "greeter",
		"--log_level=error call ":         "greeter",
		"call greeter ":                   "Debug.Health Debug.Stats Say.Hello",
		"call nosuch ":                    "",
		"call greeter Say.Hello {} ":      "",
		"health --registry=broken --foo ": "",
		"health --registry=broken ":       "",
		"publish ":                        "",
	} {
		got := micro(t, d, env, append([]string{"__complete"}, strings.Split(line, " ")...)...)
		offered, _, _ := strings.Cut(got.out, ":") // the rest is for the shell
		if strings.Join(strings.Fields(offered), " ") != want {
			t.Errorf("%q is completed with %q, want %q", line, offered, want)
		}
	}
}
