package natsconn_test

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/natsconn"
	"github.com/micro/sidecar/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, address string) (*natsconn.Config, error) {
	t.Helper()
	u, err := engineurl.Parse("nats", address)
	if err != nil {
		t.Fatal(err)
	}
	p := engineurl.Query(u)
	c, err := natsconn.Parse(u, p)
	if err == nil {
		err = p.Err()
	}
	return c, err
}

// reaches reports whether the server at the address lets us in.
func reaches(t *testing.T, address string) bool {
	t.Helper()
	c, err := parse(t, address)
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	conn, err := c.Connect(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	defer conn.Close()
	for range 600 {
		if conn.IsConnected() && conn.Flush() == nil {
			return true
		}
		if conn.Explain(os.ErrClosed) != os.ErrClosed { //nolint:errorlint // the very same error: nothing to explain
			return false
		}
		<-time.After(50 * time.Millisecond)
	}
	return false
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestToken(t *testing.T) {
	s := testserver.NATS(t, func(o *server.Options) { o.Authorization = "s3cret" })
	for address, want := range map[string]bool{
		"s3cret@" + s.Addr: true, s.Addr + "?token=s3cret": true, s.Addr + "?token=other": false, s.Addr: false,
		"127.0.0.1:1,s3cret": false,
	} {
		if have := reaches(t, address); have != want {
			t.Errorf("%s: let in: %v, want %v", address, have, want)
		}
	}
}

func TestNkey(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	s := testserver.NATS(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	if !reaches(t, s.Addr+"?nkey="+file(t, string(seed))) {
		t.Error("not let in by the key")
	}
	if reaches(t, s.Addr) {
		t.Error("let in without a key")
	}
}

func TestTLS(t *testing.T) {
	authority := testserver.NewAuthority(t)
	s := testserver.NATS(t, func(o *server.Options) {
		o.TLS, o.TLSVerify = true, true
		o.TLSConfig = &tls.Config{
			Certificates: []tls.Certificate{authority.Certificate()}, ClientCAs: authority.Pool,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		}
	})
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	pair := "&cert_file=" + cert + "&key_file=" + key
	for address, want := range map[string]bool{
		"tls://" + s.Addr + "?ca_file=" + authority.File + pair: true,
		"tls://127.0.0.1:1," + s.Addr + "?insecure=true" + pair: true,
		s.Addr + "?ca_file=" + authority.File:                   false, // no certificate of ours
		"tls://" + s.Addr + "?server_name=localhost" + pair:     false, // nobody vouches for theirs
	} {
		if have := reaches(t, address); have != want {
			t.Errorf("%s: let in: %v, want %v", address, have, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for address, want := range map[string]string{
		"http://h":               "expected nats or tls",
		"h:1/path":               "expected no path",
		"u:p@h?token=x":          "expected one of",
		"h?creds=/nosuch":        "creds: expected a readable file",
		"h?nkey=" + file(t, "x"): "nkey: expected a readable file",
		"h?tokn=x":               "did you mean token?",
		"h?ca_file=/nosuch":      "ca_file",
	} {
		if _, err := parse(t, address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
