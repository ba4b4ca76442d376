package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/testserver"
)

// aSidecar runs a sidecar and returns the flag that goes through it.
func aSidecar(t *testing.T, env []string, begun *running) string {
	t.Helper()
	begun.err.wait(t, "serving")
	t.Cleanup(func() {
		if status := begun.stop(); status != exitOK {
			t.Errorf("the sidecar ended with %d:\n%s", status, begun.err.String())
		}
	})
	return "--proxy_address=" + regexp.MustCompile(`address="?(127[0-9.:]+)`).FindStringSubmatch(begun.err.String())[1]
}

// input runs a command with a standard input and returns what it left behind.
func input(t *testing.T, in io.Reader, begin func(s *streams) int) result {
	t.Helper()
	var out, err strings.Builder
	status := begin(&streams{in: in, out: &out, err: &err})
	return result{status, out.String(), err.String()}
}

func TestStream(t *testing.T) {
	d, env := inMemory(t)
	g := testserver.StartGRPC(t, testserver.ReflectionV1)
	works(t, d, env, "register", "service", fmt.Sprintf(
		`{"name":"interop","version":"1","nodes":[{"id":"i","address":%q,"metadata":{"protocol":"grpc","grpc":"standard"}}]}`, g.Addr))
	through := aSidecar(t, env, begin(t, d, env, "sidecar", "--address=127.0.0.1:0"))
	const one, two = `{"payload":{"body":"AA=="}}`, `{"payload":{"body":"AAA="}}`
	for _, flags := range [][]string{nil, {through}} {
		micro := func(args ...string) []string { return append(append([]string{"stream", "interop"}, args...), flags...) }
		if got := works(t, d, env, micro("TestService.StreamingOutputCall", `{"responseParameters": [{"size":1}, {"size":2}]}`)...); got != one+"\n"+two+"\n" {
			t.Errorf("%v: printed %q", flags, got)
		}
		if got := works(t, d, env, micro("Health.Check")...); got != `{"status":"SERVING"}`+"\n" {
			t.Errorf("%v: a method that does not stream printed %q", flags, got)
		}
		got := fails(t, d, env, "late", micro("TestService.StreamingOutputCall", `{"responseParameters":[{"size":1}],"responseStatus":{"code":10,"message":"late"}}`)...)
		if got != one+"\n" {
			t.Errorf("%v: before the error it printed %q", flags, got)
		}
		fails(t, d, env, "not you", micro("TestService.StreamingOutputCall", `{"responseStatus":{"code":7,"message":"not you"}}`)...)
		fails(t, d, env, "has no method Nothing", micro("TestService.Nothing")...)
		fails(t, d, env, "none not found", append([]string{"stream", "none", "A.B"}, flags...)...)

		values := input(t, strings.NewReader("{\n  \"payload\": {\"body\":\"AA==\"}\n}{}\n"), func(s *streams) int {
			s.env = env
			return run(t.Context(), micro("TestService.FullDuplexCall", "-"), s, d)
		})
		if values.status != exitOK || values.out != one+"\n{}\n" || values.err != "" {
			t.Errorf("%v: from standard input: %+v", flags, values)
		}
		values = input(t, strings.NewReader(`{} {"a`), func(s *streams) int {
			s.env = env
			return run(t.Context(), micro("TestService.StreamingInputCall", "-"), s, d)
		})
		if values.status != exitFailure || !strings.Contains(values.err, "standard input") || strings.Count(values.err, "\n") != 1 {
			t.Errorf("%v: nonsense on standard input: %+v", flags, values)
		}

		// The user's end is a good one.
		r := begin(t, d, env, micro("TestService.StreamingOutputCall", `{"responseParameters":[{"size":1,"intervalUs":1}]}`)...)
		r.out.wait(t, one)
		if status := r.stop(); status != exitOK || r.err.String() != "" {
			t.Errorf("%v: interrupted: status %d, stderr %q", flags, status, r.err.String())
		}
	}
	if got := micro(t, d, env, "stream", "interop", "A.B", `{`); got.status != exitUsage || !strings.Contains(got.err, "no JSON") {
		t.Errorf("a request that is no JSON: %+v", got)
	}
}

// TestStreamThatBreaks: a line {"error":…} is the stream's error when the
// answer breaks off behind it, else a message.
func TestStreamThatBreaks(t *testing.T) {
	const line = `{"error":{"id":"x","code":409,"detail":"late","status":"Conflict"}}`
	for _, tt := range []struct {
		text      string
		cut       bool
		out, want string
	}{
		{"{}\n" + line + "\n", true, "{}\n", "late"},
		{"{}\n" + line + "\n", false, "{}\n" + line + "\n", ""},
		{line + "\n" + line + "\n{}\n", false, line + "\n" + line + "\n{}\n", ""},
		{`{"error":{"status":"Conflict"}}` + "\n", true, "", "Conflict"},
		{"{}\n{\"a", true, "{}\n", "lost"},
		{"{}\n{\"a", false, "{}\n", "lost"},
		{"{}\n", true, "{}\n", "lost"},
	} {
		flag := through(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-ndjson")
			fmt.Fprint(w, tt.text)
			if tt.cut {
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		})
		got := micro(t, someDrivers(t), nil, "stream", "x", "A.B", flag)
		if got.out != tt.out || !strings.Contains(got.err, tt.want) || (got.status == exitOK) != (tt.want == "") || (got.err == "") != (tt.want == "") {
			t.Errorf("%q, cut %v: %+v, want %q", tt.text, tt.cut, got, tt.want)
		}
	}
	flag := through(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "welcome to nginx") })
	fails(t, someDrivers(t), nil, "content type", "stream", "x", "A.B", flag)
}

// TestValuesAreReadAsTheyCome: a value is there before the input ends, and an
// interrupted command does not wait for more.
func TestValuesAreReadAsTheyCome(t *testing.T) {
	in, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	next := values(ctx, in)
	go func() { _, _ = io.WriteString(out, "[1,\n 2]") }() // it fails when the test ends first
	if got, err := next(); err != nil || string(got) != "[1,2]" {
		t.Errorf("%q, %v", got, err)
	}
	cancel()
	if _, err := next(); err == nil {
		t.Error("no error")
	}
	out.Close()
}
