package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.Main(map[string]enginetest.Work{"write": write, "drop": drop})
	goleak.VerifyTestMain(m)
}

// open opens an engine that is closed when the test ends.
func open(t testing.TB, o engine.Options) *engine.Engine {
	t.Helper()
	e, err := engine.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// within polls until ok holds.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func bounded(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// bucket opens a key-value bucket on an engine's registry connection.
func bucket(t testing.TB, e *engine.Engine) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(e.RegistryConn())
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateOrUpdateKeyValue(bounded(t, 30*time.Second), jetstream.KeyValueConfig{Bucket: "test"})
	if err != nil {
		t.Fatalf("bucket: %v", err)
	}
	return kv
}

func TestHostAndJoin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "data")
	host := open(t, engine.Options{DataDir: dir, CanHost: true})
	if !host.Hosting() {
		t.Error("the first one does not host")
	}
	joined := open(t, engine.Options{DataDir: dir, CanHost: true})
	cli := open(t, engine.Options{DataDir: dir})
	if joined.Hosting() || cli.Hosting() {
		t.Error("a second one hosts")
	}
	if _, err := bucket(t, host).PutString(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*engine.Engine{joined, cli} {
		got, err := bucket(t, e).Get(t.Context(), "k")
		if err != nil || string(got.Value()) != "v" {
			t.Errorf("Get = %v, %v", got, err)
		}
		if err := e.Ping(bounded(t, 10*time.Second)); err != nil {
			t.Errorf("Ping: %v", err)
		}
	}
	for path, want := range map[string]os.FileMode{"": 0o700, "engine": 0o700, "engine/host.json": 0o600, "engine/lock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != want {
			t.Errorf("mode of %q = %o, want %o", path, info.Mode().Perm(), want)
		}
	}
}

func TestAccountsAreApart(t *testing.T) {
	e := open(t, engine.Options{DataDir: t.TempDir(), CanHost: true})
	sub, err := e.MessagesConn().SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.MessagesConn().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := e.RegistryConn().Publish("a", nil); err != nil {
		t.Fatal(err)
	}
	if err := e.RegistryConn().Flush(); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("the messages' account got %s of the registry's", m.Subject)
	}
}

func TestHandOver(t *testing.T) {
	dir := t.TempDir()
	host, err := engine.Open(t.Context(), engine.Options{DataDir: dir, CanHost: true})
	if err != nil {
		t.Fatal(err)
	}
	next := open(t, engine.Options{DataDir: dir, CanHost: true})
	kv := bucket(t, next)
	for i := range 100 {
		if _, err := kv.PutString(t.Context(), fmt.Sprint(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if err := host.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := host.Close(t.Context()); err != nil {
		t.Errorf("Close again: %v", err)
	}
	within(t, 30*time.Second, "the joined one hosts", next.Hosting)
	within(t, 30*time.Second, "it answers", func() bool { return next.Ping(bounded(t, 10*time.Second)) == nil })
	t.Logf("handed over in %v", time.Since(start))
	keys, err := kv.Keys(bounded(t, 30*time.Second))
	if err != nil || len(keys) != 100 {
		t.Errorf("%d keys, %v; want 100", len(keys), err)
	}
}

func TestNoHost(t *testing.T) {
	dir := t.TempDir()
	check := func() {
		t.Helper()
		start := time.Now()
		_, err := engine.Open(t.Context(), engine.Options{DataDir: dir})
		if !errors.Is(err, engine.ErrNoHost) || !strings.Contains(err.Error(), dir) {
			t.Errorf("Open without a host: %v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v to say so", took)
		}
	}
	check()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("a process that only joins left %v, %v", entries, err)
	}
	enginetest.Start(t, dir, "").Stop()
	check() // after an orderly stop
	enginetest.Start(t, dir, "").Kill()
	check() // after a kill, which leaves what it published
}

// envDrop names the data directory of the engine that the work drop forgets.
const envDrop = "MICRO_ENGINE_TEST_DROP"

// drop opens an engine, loses all references to it and collects garbage.
func drop(ctx context.Context, _ *engine.Engine) error {
	e, err := engine.Open(ctx, engine.Options{DataDir: os.Getenv(envDrop), CanHost: true})
	if err != nil {
		return err
	}
	fmt.Println("hosting", e.Hosting())
	for range 10 { // e is dead from here on
		runtime.GC()
		time.Sleep(time.Millisecond) // for cleanups, which report to nobody
	}
	fmt.Println("collected")
	return nil
}

func TestLockOutlivesGarbageCollection(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(envDrop, dir)
	p := enginetest.Start(t, t.TempDir(), "drop")
	if line := p.Line(); line != "hosting true" {
		t.Fatal(line)
	}
	if line := p.Line(); line != "collected" {
		t.Fatal(line)
	}
	second := open(t, engine.Options{DataDir: dir, CanHost: true})
	if second.Hosting() {
		t.Fatal("two hosts share a store")
	}
}

func TestStartTogether(t *testing.T) {
	dir := t.TempDir()
	const n = 8
	opened := make(chan *engine.Engine, n)
	for range n {
		go func() {
			e, err := engine.Open(t.Context(), engine.Options{DataDir: dir, CanHost: true})
			if err != nil {
				t.Errorf("Open: %v", err)
			}
			opened <- e
		}()
	}
	var hosts, all []*engine.Engine
	for range n {
		e := <-opened
		if e == nil {
			continue
		}
		all = append(all, e)
		if e.Hosting() {
			hosts = append(hosts, e)
		}
	}
	if len(hosts) != 1 {
		t.Errorf("%d hosts, want 1", len(hosts))
	}
	// They stop together too: each hands over to one that is left, or to nobody.
	done := make(chan error, n)
	for _, e := range all {
		go func() { done <- e.Close(context.Background()) }()
	}
	for range all {
		if err := <-done; err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if e := open(t, engine.Options{DataDir: dir, CanHost: true}); !e.Hosting() {
		t.Error("the lock is still taken")
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		e, err := engine.Open(b.Context(), engine.Options{DataDir: b.TempDir(), CanHost: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := e.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
