package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func example() *Entry {
	return &Entry{
		Begun: time.Date(2026, 7, 8, 9, 10, 11, 12_000_000, time.UTC), Took: 1500 * time.Microsecond,
		Remote: "192.0.2.7:5000", Method: "GET", Host: "h", Path: "/a/b", Proto: "HTTP/1.1", Status: 200, Sent: 42,
		Service: "go.micro.srv.a", Node: "10.0.0.1:80", RequestID: "7", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", UserAgent: "curl/8",
	}
}

func TestForms(t *testing.T) {
	want := `{"time":"2026-07-08T09:10:11.012Z","remote":"192.0.2.7:5000","method":"GET","host":"h","path":"/a/b","proto":"HTTP/1.1","status":200,"bytes":42,"duration_ms":1.500,"service":"go.micro.srv.a","node":"10.0.0.1:80","request_id":"7","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","user_agent":"curl/8"}` + "\n"
	if got := string(appendJSON(nil, example())); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	want = `192.0.2.7 - - [08/Jul/2026:09:10:11 +0000] "GET /a/b HTTP/1.1" 200 42 "-" "curl/8"` + "\n"
	if got := string(appendCombined(nil, example())); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	want = `- - - [08/Jul/2026:09:10:11 +0000] "GET /\"\x0a\xff HTTP/1.1" 200 42 "-" "-"` + "\n"
	odd := example()
	odd.Remote, odd.Path, odd.UserAgent = "@", "/\"\n\xff", ""
	if got := string(appendCombined(nil, odd)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Whatever a client sends is one line, and JSON.
func FuzzForms(f *testing.F) {
	f.Add("/a\"b\\\n\x00", "curl", "GET")
	f.Add("/\xff\u2028é", "\"", " \r\n")
	f.Fuzz(func(t *testing.T, path, agent, method string) {
		e := example()
		e.Path, e.UserAgent, e.Method = path, agent, method
		line := appendJSON(nil, e)
		var back struct {
			Path  string
			Agent string `json:"user_agent"`
		}
		if bytes.Count(line, []byte("\n")) != 1 || !utf8.Valid(line) || json.Unmarshal(line, &back) != nil {
			t.Fatalf("%q", line)
		}
		if utf8.ValidString(path) && back.Path != path || utf8.ValidString(agent) && back.Agent != agent {
			t.Errorf("%q came back as %q, %q", line, back.Path, back.Agent)
		}
		combined := appendCombined(nil, e)
		if !regexp.MustCompile(`^[ -~]*\n$`).Match(combined) {
			t.Errorf("%q", combined)
		}
	})
}

func TestLinesAreWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := Open(Options{Path: path, Format: JSON}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l.Add(example())
	}
	l.Close()
	l.Close() // again does nothing
	if text := content(t, path); strings.Count(text, "\n") != 100 {
		t.Errorf("%d lines", strings.Count(text, "\n"))
	}
	if l.Dropped() != 0 {
		t.Errorf("%d lines dropped", l.Dropped())
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheFileIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := Open(Options{Path: path, Format: JSON}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Add(example())
	eventually(t, func() bool { return content(t, path) != "" })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	eventually(t, func() bool { _, err := os.Stat(path); return err == nil })
	l.Add(example())
	eventually(t, func() bool { return strings.Count(content(t, path), "\n") == 1 })
	if strings.Count(content(t, path+".1"), "\n") != 1 {
		t.Error("the old file got more")
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); !ok(); <-tick.C {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("it never came to that")
		}
	}
}

func TestWhatIsWanted(t *testing.T) {
	all, slow := &Log{}, &Log{o: Options{Slow: time.Second}}
	for _, tt := range []struct {
		status    int
		took      time.Duration
		all, slow bool
	}{{200, 0, true, false}, {404, time.Millisecond, true, false}, {200, time.Second, true, true}, {502, 0, true, true}, {0, 0, true, true}} {
		if all.Wants(tt.status, tt.took) != tt.all || slow.Wants(tt.status, tt.took) != tt.slow {
			t.Errorf("%d after %v", tt.status, tt.took)
		}
	}
}

// A writer that takes nothing holds nobody up.
func TestASlowWriterLosesLines(t *testing.T) {
	r, w := io.Pipe()
	l := &Log{
		o: Options{Format: JSON}, lines: make(chan []byte, waiting), reopen: make(chan struct{}),
		stop: make(chan struct{}), stopped: make(chan struct{}), fail: func(error) {},
	}
	l.buffers.New = func() any { return make([]byte, 0, 512) }
	go l.write(w)
	const lines = waiting + 2000 // and what is on its way
	for range lines {
		l.Add(example())
	}
	if l.Dropped() == 0 {
		t.Error("no line was dropped, and nobody reads")
	}
	read := make(chan int)
	go func() {
		n := 0
		for lines := bufio.NewScanner(r); lines.Scan(); n++ {
			if !json.Valid(lines.Bytes()) {
				t.Errorf("%q", lines.Text())
			}
		}
		read <- n
	}()
	l.Close()
	if n := <-read; n+int(l.Dropped()) != lines {
		t.Errorf("%d read and %d dropped of %d", n, l.Dropped(), lines)
	}
}

// broken is a full disk, until it is mended.
type broken struct {
	bytes.Buffer
	mended chan struct{}
}

func (b *broken) Write(p []byte) (int, error) {
	select {
	case <-b.mended:
		return b.Buffer.Write(p)
	default:
		return 0, errors.New("no space left on device")
	}
}

func (b *broken) Close() error { return nil }

func TestAFullDiskIsToldOnce(t *testing.T) {
	told := make(chan error, 100)
	disk := &broken{mended: make(chan struct{})}
	l := &Log{
		o: Options{Format: JSON}, lines: make(chan []byte, waiting), reopen: make(chan struct{}),
		stop: make(chan struct{}), stopped: make(chan struct{}), fail: func(err error) { told <- err },
	}
	l.buffers.New = func() any { return make([]byte, 0, 512) }
	go l.write(disk)
	l.Add(example())
	if err := <-told; !strings.Contains(err.Error(), "no space") {
		t.Errorf("told %v", err)
	}
	for range 10 {
		l.Add(example())
		eventually(t, func() bool { return len(l.lines) == 0 })
	}
	close(disk.mended)
	l.Add(example())
	l.Close()
	if len(told) > 0 {
		t.Errorf("told again: %v", <-told)
	}
	if !strings.Contains(disk.String(), `"path":"/a/b"`) {
		t.Error("what came after it was mended is not there")
	}
}

func TestNoSuchFolder(t *testing.T) {
	if _, err := Open(Options{Path: filepath.Join(t.TempDir(), "no", "access.log")}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func BenchmarkAdd(b *testing.B) {
	l, err := Open(Options{Path: filepath.Join(b.TempDir(), "access.log"), Format: JSON}, func(err error) { b.Error(err) })
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	e := example()
	b.ReportAllocs()
	for b.Loop() {
		l.Add(e)
	}
}
