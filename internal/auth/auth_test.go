package auth

import (
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"# comment\n\nalice: secret-of-alice\r\n bob:secret-of-bob": "",
		"alice:with:colons:in:it":                                   "",
		"":                                                          "1: there is no token",
		"# only\n# comments\n":                                      "2: there is no token",
		"alice":                                                     "1: expected name:token",
		"alice:secret-of-alice\n:nameless-one":                      "2: expected name:token",
		"alice:":                                                    "1: \"alice\" has no token",
		"alice:short":                                               "",
		"alice:with a space in it":                                  "has a space",
		"alice:schlüssel-von-alice":                                 "no header can carry",
		"a:secret-of-both\na:another-secret":                        "2: the name \"a\" stands in line 1",
		"a:secret-of-both\nb:secret-of-both":                        "2: the token of \"b\" stands in line 1",
		strings.Repeat("#\n", maxFile):                              "larger than",
	} {
		_, err := parse([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret-of") {
			t.Errorf("%.60q: the error shows a token: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("alice:secret-of-alice\n# x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parse(text)
		if (err == nil) != (s != nil && len(s.tokens) > 0) {
			t.Fatalf("%v, %v", s, err)
		}
	})
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, "alice:secret-of-alice\nbob:secret-of-bob\n")
	tokens, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{
		"secret-of-alice": "alice", "secret-of-bob": "bob", "": "", "alice": "", "secret-of-alic": "", "alice:secret-of-alice": "",
	} {
		name, ok := tokens.Check(token)
		if name != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", token, name, ok)
		}
	}
	if n := testing.AllocsPerRun(100, func() { tokens.Check("secret-of-bob") }); n > 0 {
		t.Errorf("a check allocates %v times", n)
	}
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, "alice:secret-of-alice\n")
	tokens, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log lines
		ctx := t.Context()
		go tokens.Watch(ctx, slog.New(slog.NewTextHandler(&log, nil)))
		write(t, path, "bob:secret-of-bob\n")
		time.Sleep(reloadInterval)
		synctest.Wait()
		if _, ok := tokens.Check("secret-of-alice"); ok {
			t.Error("a token that was taken away is good")
		}
		write(t, path, "nonsense")
		time.Sleep(5 * reloadInterval)
		synctest.Wait()
		if _, ok := tokens.Check("secret-of-bob"); !ok {
			t.Error("a bad file changed the tokens")
		}
		if got := log.String(); strings.Count(got, "expected name:token") != 1 {
			t.Errorf("logged:\n%s", got)
		}
	})
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestClientForms(t *testing.T) {
	for field, want := range map[string]string{
		"Bearer abc": "abc", "bearer  abc ": "abc", "Basic abc": "", "Bearer": "", "Bearer ": "", "": "", "abc": "",
	} {
		if got := Bearer(field); got != want {
			t.Errorf("Bearer(%q) = %q", field, got)
		}
	}
	for pair, want := range map[string]string{"me:abc": "abc", ":abc": "abc", "me:a:b": "a:b", "me:": "", "abc": "", "": ""} {
		encoded := base64.StdEncoding.EncodeToString([]byte(pair))
		if got := Basic("basic " + encoded); got != want {
			t.Errorf("Basic(%q) = %q", pair, got)
		}
		if got := Basic("Bearer " + encoded); got != "" {
			t.Errorf("Basic of a Bearer: %q", got)
		}
	}
	if got := Basic("Basic !!"); got != "" {
		t.Errorf("Basic of nonsense: %q", got)
	}
	encoded := base64.RawURLEncoding.EncodeToString([]byte("secret?of/alice"))
	offer := "chat, micro, " + ProtocolToken + encoded
	if got := Offered(offer); got != "secret?of/alice" {
		t.Errorf("Offered: %q", got)
	}
	if got := Withhold(offer); got != "chat" {
		t.Errorf("Withhold: %q", got)
	}
	for _, bad := range []string{"", "chat", ProtocolToken, ProtocolToken + "!!", "micro"} {
		if got := Offered(bad); got != "" {
			t.Errorf("Offered(%q) = %q", bad, got)
		}
	}
}

func TestFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{
		"secret-token\n": "secret-token", "# x\n\nalice:secret-token\nbob:other": "secret-token", "\n": "", "a b": "", "alice:": "",
	} {
		write(t, path, text)
		got, err := First(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
