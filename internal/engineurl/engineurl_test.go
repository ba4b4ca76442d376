package engineurl_test

import (
	"crypto/tls"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"a:1":                              "etcd a:1 a:1",
		"a":                                "etcd a a:99",
		"a:1,b:2":                          "etcd a:1,b:2 a:1 b:2",
		"a,b:2":                            "etcd a,b:2 a:99 b:2",
		"etcd://a:1,b:2":                   "etcd a:1,b:2 a:1 b:2",
		"https://u:p%2F@a_b.c,[::1]:2?x=y": "https a_b.c,[::1]:2 a_b.c:99 [::1]:2",
		"[::1]:1,[fe80::1]":                "etcd [::1]:1,[fe80::1] [::1]:1 [fe80::1]:99",
		"static:///etc/x.yaml":             "static  error: expected HOST:PORT, got no host",
		"/etc/x.yaml":                      "etcd  error: expected HOST:PORT, got no host",
		"./x.yaml":                         "etcd . .:99",
		":8000":                            "etcd :8000 error: expected HOST:PORT, got no host",
		"":                                 "error: no host and no path",
		"etcd://":                          "error: no host and no path",
		"a:0":                              "error: a port from 1 to 65535",
		"a:70000":                          "error: a port from 1 to 65535",
		"a:+1":                             "error: a port from 1 to 65535",
		"a:":                               "error: a port from 1 to 65535",
		"a,":                               "error: host names or IP addresses",
		"a b":                              "error: spaces",
		"::1":                              "error: expected",
		"[1.2.3.4]:1":                      "error: [IPv6 address]",
		"[::1":                             "error: [IPv6 address]",
		"a;b":                              "error: host names",
		"a:1#x":                            "error: %23",
		"://a":                             "error: missing protocol scheme",
		"u:secret%@a:1":                    "error: invalid user or password",
		"u:secret/x@a:1":                   "error: before an @",
		"u:sec ret@a:1":                    "error: spaces",
		"etcd://a:1" + strings.Repeat("x", 1<<17): "error: at most",
	} {
		u, err := engineurl.Parse("etcd", text)
		have := ""
		if err == nil {
			have = u.Scheme + " " + u.Host
			hosts, err := engineurl.Hosts(u, "99")
			if err != nil {
				have += " error: " + err.Error()
			}
			have = strings.Join(append([]string{have}, hosts...), " ")
		} else {
			have = "error: " + err.Error()
		}
		kind, rest, _ := strings.Cut(want, "error: ")
		if !strings.HasPrefix(have, kind) || !strings.Contains(have, rest) || (rest == "") != !strings.Contains(have, "error") {
			t.Errorf("%.60q: have %q, want %q", text, have, want)
		}
		if strings.Contains(have, "secret") {
			t.Errorf("%q: the error shows the password: %s", text, have)
		}
	}
}

func query(t *testing.T, q string) *engineurl.Params {
	t.Helper()
	return engineurl.Query(&url.URL{RawQuery: q})
}

func TestParams(t *testing.T) {
	for q, want := range map[string]string{
		"token=x&dc=y&n=5&on=true&wait=3s": "",
		"":                                 "",
		"tokn=x":                           `unknown parameter "tokn" (did you mean token?): expected dc, n, on, token, wait`,
		"zzzzzz=x":                         `unknown parameter "zzzzzz": expected dc, n, on, token, wait`,
		"n=x":                              `parameter n: expected a number from 1 to 9, got "x"`,
		"n=10":                             `parameter n: expected a number from 1 to 9, got "10"`,
		"on=yes":                           `parameter on: expected false or true, got "yes"`,
		"wait=1h":                          `parameter wait: expected a duration from 1s to 1m0s, got "1h"`,
		"token=":                           "parameter token: expected a value, got none",
		"token=a&token=b":                  "parameter token: expected once, got it 2 times",
		"a;b":                              "parameters: ",
		"%zz":                              "parameters: ",
	} {
		p := query(t, q)
		token, dc := p.String("token", "none"), p.String("dc", "")
		n, on, wait := p.Int("n", 7, 1, 9), p.Bool("on"), p.Duration("wait", time.Second, time.Second, time.Minute)
		err := p.Err()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", q, err, want)
		}
		if q == "" && (token != "none" || dc != "" || n != 7 || on || wait != time.Second) {
			t.Errorf("defaults: %q %q %d %v %v", token, dc, n, on, wait)
		}
		if strings.HasPrefix(q, "token=x&") && (token != "x" || dc != "y" || n != 5 || !on || wait != 3*time.Second) {
			t.Errorf("values: %q %q %d %v %v", token, dc, n, on, wait)
		}
	}
	if err := engineurl.Query(nil).Err(); err != nil {
		t.Errorf("no address: %v", err)
	}
	if err := query(t, "a=1").Err(); err == nil || !strings.Contains(err.Error(), "expected none") {
		t.Errorf("where none is known: %v", err)
	}
}

func TestTLS(t *testing.T) {
	authority := testserver.NewAuthority(t)
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := engineurl.TLS(query(t, ""), false); c != nil {
		t.Error("TLS without being asked for")
	}
	p := query(t, "ca_file="+authority.File+"&cert_file="+cert+"&key_file="+key+"&server_name=localhost")
	c := engineurl.TLS(p, false)
	if err := p.Err(); err != nil || c == nil || c.RootCAs == nil || c.ServerName != "localhost" || c.InsecureSkipVerify {
		t.Fatalf("%v, %+v", err, c)
	}
	if pair, err := c.GetClientCertificate(nil); err != nil || !slices.ContainsFunc(pair.Certificate, func(b []byte) bool { return len(b) > 0 }) {
		t.Errorf("the client's certificate: %v", err)
	}
	if c.MinVersion != tls.VersionTLS12 {
		t.Error("older versions of TLS are taken")
	}
	for q, want := range map[string]string{
		"ca_file=/nosuch":                          "ca_file",
		"ca_file=" + empty:                         "no certificate",
		"cert_file=" + cert:                        "both or none",
		"cert_file=" + cert + "&key_file=" + empty: "cert_file and key_file",
	} {
		p := query(t, q)
		engineurl.TLS(p, false)
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", q, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a:1,b:2", "nats://u:p@[::1]:1,b?x=y", "/x", "://", "a@b@c:1", "%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := engineurl.Parse("any", s)
		if err != nil {
			return
		}
		if hosts, err := engineurl.Hosts(u, "1"); err == nil && len(hosts) == 0 {
			t.Errorf("%q: no hosts and no error", s)
		}
		_ = engineurl.Query(u).Err()
	})
}
