package engine_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/micro/sidecar/internal/engine"
)

// put writes a file of the engine's folder, and the folder if need be.
func put(t testing.TB, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, "engine", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hold takes the lock as a host would.
func hold(t testing.TB, dir string) {
	t.Helper()
	put(t, dir, "lock", "")
	lock := flock.New(filepath.Join(dir, "engine", "lock"))
	if ok, err := lock.TryLock(); !ok || err != nil {
		t.Fatalf("lock: %v, %v", ok, err)
	}
	t.Cleanup(func() { _ = lock.Close() })
}

// refused opens an engine that must not open, in time, and checks the sentence.
func refused(t *testing.T, o engine.Options, is error, says string) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	e, err := engine.Open(ctx, o)
	if err == nil {
		_ = e.Close(t.Context())
		t.Fatal("Open: no error")
	}
	if (is != nil && !errors.Is(err, is)) || !strings.Contains(err.Error(), says) {
		t.Errorf("Open: %v, want %q in it", err, says)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Open took %v", took)
	}
}

func TestNewerStore(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "store/format", "3\n")
	refused(t, engine.Options{DataDir: dir, CanHost: true}, engine.ErrNewer,
		"the store in "+filepath.Join(dir, "engine", "store")+" was written by a newer micro (format 3, this one knows 1)")
	put(t, dir, "store/format", "1\n") // the lock was let go
	if e := open(t, engine.Options{DataDir: dir, CanHost: true}); !e.Hosting() {
		t.Error("it does not host")
	}
}

func TestOddStoreFormat(t *testing.T) {
	for _, content := range []string{"", "x", "0", "-1", strings.Repeat("9", 100)} {
		dir := t.TempDir()
		put(t, dir, "store/format", content)
		refused(t, engine.Options{DataDir: dir, CanHost: true}, nil, "expected the number of the store's format")
	}
}

func TestNewerHost(t *testing.T) {
	dir := t.TempDir()
	hold(t, dir)
	put(t, dir, "host.json", `{"format":3,"address":["not","what","we","know"]}`)
	for _, canHost := range []bool{true, false} {
		refused(t, engine.Options{DataDir: dir, CanHost: canHost}, engine.ErrNewer, "a newer micro (format 3, this one knows 1)")
	}
}

// TestOddHost has a lock that is held and a published file that is of no use.
func TestOddHost(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for content, says := range map[string]string{
		"":                                     "host.json",
		"{":                                    "host.json",
		"[]":                                   "host.json",
		`{"format":0}`:                         "format: expected 1 to 1, got 0",
		`{"format":1}`:                         "address: expected host:port",
		`{"format":-5}`:                        "format: expected",
		`{"format":1,"address":"127.0.0.1:1"}`: "token: expected one",
		`{"format":1,"address":"127.0.0.1:1","token":"x","pid":7}`:            "does not answer",
		`{"format":1,"address":"` + silent.Addr().String() + `","token":"x"}`: "does not answer",
		strings.Repeat(" ", 1<<20):                                            "at most 65536 bytes",
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			hold(t, dir)
			put(t, dir, "host.json", content)
			refused(t, engine.Options{DataDir: dir, CanHost: true}, nil, says)
		})
	}
	dir := t.TempDir()
	hold(t, dir)
	refused(t, engine.Options{DataDir: dir}, nil, "has not published its address")
}

// TestLateAddress joins a host whose address appears only later.
func TestLateAddress(t *testing.T) {
	dir := t.TempDir()
	open(t, engine.Options{DataDir: dir, CanHost: true})
	path := filepath.Join(dir, "engine", "host.json")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	back := time.AfterFunc(100*time.Millisecond, func() {
		if err := os.Rename(path+".away", path); err != nil {
			t.Error(err)
		}
	})
	defer back.Stop()
	if e := open(t, engine.Options{DataDir: dir}); e.Hosting() {
		t.Error("it hosts")
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, engine.Options{DataDir: "relative", CanHost: true}, nil, "expected an absolute path")
	refused(t, engine.Options{DataDir: file, CanHost: true}, nil, "is not usable by this user")
	put(t, dir, "store", "a file where a folder belongs")
	refused(t, engine.Options{DataDir: dir, CanHost: true}, nil, "store")
}

func TestListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for listen, says := range map[string]string{
		taken.Addr().String(): "address already in use",
		"127.0.0.1":           "expected host:port",
		"127.0.0.1:x":         "expected a port",
		"127.0.0.1:65536":     "expected a port",
	} {
		refused(t, engine.Options{DataDir: t.TempDir(), CanHost: true, Listen: listen}, nil, says)
	}
	e := open(t, engine.Options{DataDir: t.TempDir(), CanHost: true, Listen: "0.0.0.0:0"})
	if err := e.Ping(bounded(t, 30*time.Second)); err != nil {
		t.Error(err)
	}
}
