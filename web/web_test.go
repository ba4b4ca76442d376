package web

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/stats", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Page().ServeHTTP(w, r)
	return w
}

func TestThePageIsOneSmallDocument(t *testing.T) {
	w := get(t)
	body := w.Body.String()
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.HasPrefix(body, "<!doctype html>") {
		t.Fatalf("%d %v %.40q", w.Code, w.Header(), body)
	}
	const most = 200 << 10
	if len(body) > most {
		t.Errorf("the page has %d bytes, at most %d were to be", len(body), most)
	}
	for _, part := range []string{"Permission is hereby granted", "uPlot"} { // of the chart library
		if !strings.Contains(body, part) {
			t.Errorf("the licence's %q is not in the page", part)
		}
	}
	if strings.Contains(body, "/*css*/") || strings.Contains(body, "/*js*/") {
		t.Error("the page is not put together")
	}
	loads := regexp.MustCompile(`(?i)<(?:script|link|img|iframe)[^>]+(?:src|href)="([^"]*)"|@import|url\(`)
	for _, m := range loads.FindAllStringSubmatch(body, -1) {
		if !strings.HasPrefix(m[1], "data:") {
			t.Errorf("the page loads %s", m[0])
		}
	}
}

func TestThePolicyAllowsNothingElse(t *testing.T) {
	policy := get(t).Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("%q is not in %q", part, policy)
		}
	}
	for _, loose := range []string{"unsafe", "http:", "https:", "*"} {
		if strings.Contains(policy, loose) {
			t.Errorf("%q is in %q", loose, policy)
		}
	}
	if strings.Count(policy, "'sha256-") != 2 {
		t.Errorf("script and style are not named by their content: %q", policy)
	}
}

func TestThePageIsNotSentTwice(t *testing.T) {
	tag := get(t).Header().Get("ETag")
	if w := get(t, "If-None-Match", tag); tag == "" || w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("tag %q: %d with %d bytes", tag, w.Code, w.Body.Len())
	}
}

// What is committed is what the source builds.
func TestTheBuiltFilesAreUpToDate(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no npm: what is committed is not held against its source")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "build.mjs", "src"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-r", name, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, command := range [][]string{{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"}, {"node", "build.mjs"}} {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	for _, name := range []string{"page.html", "page.css", "page.js"} {
		want, err := os.ReadFile(filepath.Join(dir, "dist", name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("dist", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("dist/%s is not what src builds: run `make web`", name)
		}
	}
}
