package server

import (
	"context"
	"encoding/xml"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

// suiteSize is how many cases h2spec has without its strict ones.
const suiteSize = 145

// h2spec holds HTTP/2 servers against RFC 7540 and RFC 7541. Go's own server
// passes 140 of the cases. Ours fails exactly these.
func TestH2Spec(t *testing.T) {
	const (
		// What does not begin with the preface is HTTP/1.1 here, and such a
		// first line is answered with 400 before the connection is closed. Over
		// TLS, where HTTP/2 was negotiated, this case passes.
		preface = "http2/3.5: Sends invalid connection preface"
		// net/http ends connections whose SETTINGS name a parameter twice: no
		// client has a reason to, and it is a cheap way to keep a server busy.
		settings = "http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE"
	)
	program := testserver.H2Spec(t)
	for way, want := range map[string][]string{
		"HTTP/2":          {preface, settings},
		"HTTP/2 over TLS": {settings},
	} {
		t.Run(way, func(t *testing.T) {
			s, _, _ := through(t, way, routes{serve: hello})
			_, port, err := net.SplitHostPort(s.addr)
			if err != nil {
				t.Fatal(err)
			}
			report := filepath.Join(t.TempDir(), "report.xml")
			args := []string{"--host=127.0.0.1", "--port=" + port, "--timeout=5", "--junit-report=" + report}
			if way == "HTTP/2 over TLS" {
				args = append(args, "--tls", "--insecure")
			}
			out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
			ran, failed := readReport(t, report)
			if ran != suiteSize || !slices.Equal(failed, want) {
				t.Errorf("of %d cases these failed:\n%q\nwant of %d:\n%q\n(%v)\n%s", ran, failed, suiteSize, want, err, out)
			}
		})
	}
}

// hello reads the request and greets.
func hello(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	const text = "hello, world"
	if err := w.Head(200, httpmsg.Header{{Name: "Content-Type", Value: "text/plain"}}, int64(len(text))); err != nil {
		return err
	}
	_, err := io.WriteString(w, text)
	return err
}

// readReport returns how many cases ran and which of them did not pass.
func readReport(t *testing.T, path string) (ran int, failed []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			ran++
			if c.Failure != nil || c.Error != nil || c.Skipped != nil {
				failed = append(failed, c.Package+": "+c.Name)
			}
		}
	}
	return ran, failed
}
