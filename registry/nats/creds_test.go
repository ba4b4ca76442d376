package nats_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry/nats"
)

// pair is a new key and its public half.
func pair(t *testing.T, kind nkeys.PrefixByte) (nkeys.KeyPair, string) {
	t.Helper()
	key, err := nkeys.CreatePair(kind)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

// sign makes a JWT.
func sign(t *testing.T, claims jwt.Claims, by nkeys.KeyPair) string {
	t.Helper()
	text, err := claims.Encode(by)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// credentials makes a file of a new user of an account.
func credentials(t *testing.T, account nkeys.KeyPair, expires time.Time) string {
	t.Helper()
	key, public := pair(t, nkeys.PrefixByteUser)
	claims := jwt.NewUserClaims(public)
	claims.Expires = expires.Unix()
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(sign(t, claims, account), seed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A server of an operator lets in whom an account of his has signed for, by the
// file that creds= names, and nobody else. Two accounts are two registries.
func TestCredentialsFile(t *testing.T) {
	operator, operatorID := pair(t, nkeys.PrefixByteOperator)
	_, system := pair(t, nkeys.PrefixByteAccount)
	resolver := &server.MemAccResolver{}
	account := func(public string, store int64) {
		claims := jwt.NewAccountClaims(public)
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: store, Streams: store, Consumer: store}
		if err := resolver.Store(public, sign(t, claims, operator)); err != nil {
			t.Fatal(err)
		}
	}
	one, oneID := pair(t, nkeys.PrefixByteAccount)
	two, twoID := pair(t, nkeys.PrefixByteAccount)
	account(system, 0)
	account(oneID, jwt.NoLimit)
	account(twoID, jwt.NoLimit)
	claims := jwt.NewOperatorClaims(operatorID)
	claims.SystemAccount = system
	signed, err := jwt.DecodeOperatorClaims(sign(t, claims, operator))
	if err != nil {
		t.Fatal(err)
	}
	s := testserver.NATS(t, func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{signed}, resolver, system
	})

	later := time.Now().Add(time.Hour)
	first := dial(t, s.Addr+"?creds="+credentials(t, one, later))
	register(t, first.Registry, "svc", time.Minute)
	for account, want := range map[nkeys.KeyPair]string{one: "[svc]", two: "[]"} {
		names, err := dial(t, s.Addr+"?creds="+credentials(t, account, later)).List(bounded(t, 30*time.Second))
		if have := "[" + strings.Join(names, " ") + "]"; err != nil || have != want {
			t.Errorf("another user's list: %s, %v, want %s", have, err, want)
		}
	}

	stranger, _ := pair(t, nkeys.PrefixByteAccount)
	for what, query := range map[string]string{
		"no credentials":          "",
		"of a stranger's account": "?creds=" + credentials(t, stranger, later),
		"of an hour ago":          "?creds=" + credentials(t, one, time.Now().Add(-time.Hour)),
	} {
		u, err := engineurl.Parse("nats", s.Addr+query)
		if err != nil {
			t.Fatal(err)
		}
		r, err := nats.Open(bounded(t, 2*time.Second), u, slog.New(slog.DiscardHandler))
		if err == nil {
			_ = r.Close()
			t.Errorf("%s: let in", what)
		} else if !strings.Contains(err.Error(), "Authorization Violation") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
