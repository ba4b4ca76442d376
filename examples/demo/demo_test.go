package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTyped(t *testing.T) {
	for _, test := range []struct {
		want string
		line []string
	}{
		{`micro list services`, []string{"micro", "list", "services"}},
		{`curl 'http://127.0.0.1:8081/registry?service=a'`, get("http://127.0.0.1:8081/registry?service=a").words()},
		{`curl -H 'Content-Type: application/json' -d '{"name": "John"}' http://h/x`,
			post("http://h/x", `{"name": "John"}`).with("Content-Type: application/json").words()},
		{`curl -X DELETE -d x http://h/x`, post("http://h/x", "x").by("DELETE").words()},
		{`echo 'it'\''s' ''`, []string{"echo", "it's", ""}},
	} {
		if got := typed(test.line[0], test.line[1:]...); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// words is the whole line.
func (c curl) words() []string { return append([]string{"curl"}, c.args()...) }

// TestWithoutCurl holds what is done without curl against curl itself.
func TestWithoutCurl(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		_ = json.NewEncoder(w).Encode([]string{r.Method, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("X-A"), string(body)})
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for _, c := range []curl{
		get(server.URL + "/a%2Fb?c=d"),
		post(server.URL+"/rpc", "service=x", `request={"name": "John"}`).with("X-A: 1"),
		post(server.URL+"/json", "{}").with("Content-Type: application/json"),
		post(server.URL+"/registry", "{}").by(http.MethodDelete),
	} {
		got, err := c.viaHTTP(t.Context())
		if err != nil || got.status != http.StatusTeapot {
			t.Fatalf("%s: %v, %v", c, got, err)
		}
		if _, err := exec.LookPath("curl"); err != nil {
			continue
		}
		if want, err := c.run(t.Context()); err != nil || got != want {
			t.Errorf("%s: without curl %v, with curl %v, %v", c, got, want, err)
		}
	}
}

func TestChecks(t *testing.T) {
	a := answer{200, `{"msg": "Hello John"}`}
	for want, check := range map[string]check{
		"":                             contains(200, `"msg":"Hello`, "John"),
		"expected status 404":          contains(404, "John"),
		`expected "Mary" in it`:        contains(200, "Hello", "Mary"),
		`expected status 200 and "no"`: isJSON(200, `"no"`),
	} {
		if err := check(a); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := isJSON(200, `{"msg":"Hello John"}`)(a); err != nil {
		t.Error(err)
	}
}

func TestLongAnswersAreShortened(t *testing.T) {
	var out strings.Builder
	(&screen{out: &out}).answer(strings.Repeat(strings.Repeat("ä", maxColumns+1)+"\n", maxLines+3))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != maxLines+1 || !strings.HasSuffix(lines[0], "ä …") || !strings.HasSuffix(lines[maxLines], "3 lines more") {
		t.Errorf("got\n%s", out.String())
	}
}

// TestDemo runs the program twice: with its port taken, which is one line and
// nothing more, and then in earnest, which leaves nothing behind.
func TestDemo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "demo")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	temp := t.TempDir()
	demo := func() (string, error) {
		cmd := exec.CommandContext(ctx, program, "-once", "-address="+l.Addr().String())
		cmd.Env = append(os.Environ(), "TMPDIR="+temp, "MICRO_ADDRESS=nonsense")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	out, err := demo()
	if err == nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "in use") {
		t.Errorf("with the port taken: %v\n%s", err, out)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	out, err = demo()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := 3; strings.Count(out, "Hello John") < want || strings.Contains(out, "\x1b") {
		t.Errorf("expected %d greetings without colours:\n%s", want, out)
	}
	left, err := os.ReadDir(temp)
	if err != nil || !reflect.DeepEqual(left, []os.DirEntry{}) {
		t.Errorf("left behind: %v %v", left, err)
	}
}
