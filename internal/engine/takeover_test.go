package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
)

// writer stores numbered entries in both accounts and tells which of them
// were acknowledged.
type writer struct {
	name  string
	kv    jetstream.KeyValue
	js    jetstream.JetStream
	acked func(kind, id string)
}

// streamConfig is a durable queue of the messages' account.
var streamConfig = jetstream.StreamConfig{
	Name: "queue", Subjects: []string{"queue.>"}, Retention: jetstream.WorkQueuePolicy,
}

func newWriter(ctx context.Context, e *engine.Engine, name string, acked func(kind, id string)) (*writer, error) {
	registry, err := jetstream.New(e.RegistryConn())
	if err != nil {
		return nil, err
	}
	kv, err := registry.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "test"})
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(e.MessagesConn())
	if err != nil {
		return nil, err
	}
	if _, err := js.CreateOrUpdateStream(ctx, streamConfig); err != nil {
		return nil, err
	}
	return &writer{name, kv, js, acked}, nil
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%s-%d", w.name, i)
		call, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := w.kv.PutString(call, id, id); err == nil {
			w.acked("k", id)
		}
		if _, err := w.js.Publish(call, "queue.x", []byte(id)); err == nil {
			w.acked("m", id)
		}
		cancel()
	}
}

// write is the work of a helper process: a writer that prints what was acknowledged.
func write(ctx context.Context, e *engine.Engine) error {
	w, err := newWriter(ctx, e, fmt.Sprint("p", os.Getpid()), func(kind, id string) {
		fmt.Println(kind, id)
	})
	if err != nil {
		return err
	}
	w.run(ctx)
	return nil
}

// hostPID returns the process that has published itself last.
func hostPID(t testing.TB, dir string) int {
	t.Helper()
	var p struct{ PID int }
	data, err := os.ReadFile(filepath.Join(dir, "engine", "host.json"))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return p.PID
}

// TestKillUnderLoad kills one host after the other while every process writes,
// then all of them, and looks for everything that was acknowledged to anybody.
func TestKillUnderLoad(t *testing.T) {
	dir := t.TempDir()
	running := map[int]*enginetest.Process{}
	start := func() {
		p := enginetest.Start(t, dir, "write")
		running[p.PID] = p
	}
	start()
	start()
	e := open(t, engine.Options{DataDir: dir}) // it only joins, so a helper hosts
	stop := writeHere(t, e)
	var killed []*enginetest.Process
	for range 3 {
		start()
		time.Sleep(300 * time.Millisecond) // of load
		host := running[hostPID(t, dir)]
		host.Kill()
		killed = append(killed, host)
		delete(running, host.PID)
		within(t, 30*time.Second, "another one hosts", func() bool {
			return running[hostPID(t, dir)] != nil && e.Ping(bounded(t, 5*time.Second)) == nil
		})
	}
	acked, longest := stop()
	t.Logf("longest time without an acknowledgement: %v", longest)
	if longest > 10*time.Second { // 2 s, and what a busy machine adds
		t.Errorf("writing stopped for %v", longest)
	}
	for _, p := range running {
		p.Kill()
		killed = append(killed, p)
	}
	for _, p := range killed {
		for _, line := range p.Lines() {
			acked[line] = true
		}
	}
	stored := readAll(t, open(t, engine.Options{DataDir: dir, CanHost: true}))
	t.Logf("%d acknowledged, %d stored", len(acked), len(stored))
	for id := range stored {
		delete(acked, id)
	}
	if len(acked) > 0 || len(stored) < 100 {
		some := slices.Sorted(maps.Keys(acked))
		t.Errorf("%d entries are stored, %d were acknowledged and are missing: %v …", len(stored), len(acked), some[:min(10, len(some))])
	}
}

// writeHere writes in this process until stop, which returns what was
// acknowledged and the longest time without an acknowledgement.
func writeHere(t *testing.T, e *engine.Engine) (stop func() (acked map[string]bool, longest time.Duration)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	acked, longest, last := map[string]bool{}, time.Duration(0), time.Now()
	w, err := newWriter(ctx, e, "test", func(kind, id string) {
		acked[kind+" "+id] = true
		longest, last = max(longest, time.Since(last)), time.Now()
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	return func() (map[string]bool, time.Duration) {
		cancel()
		<-done
		return acked, longest
	}
}

// readAll returns everything both accounts hold, as writers print it.
func readAll(t *testing.T, e *engine.Engine) map[string]bool {
	t.Helper()
	ctx := bounded(t, 30*time.Second)
	stored := map[string]bool{}
	keys, err := bucket(t, e).Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		stored["k "+key] = true
	}
	js, err := jetstream.New(e.MessagesConn())
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateOrUpdateConsumer(ctx, streamConfig.Name, jetstream.ConsumerConfig{Durable: "all"})
	if err != nil {
		t.Fatal(err)
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range info.NumPending {
		m, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
		if err != nil {
			t.Fatalf("read the stream, %d messages: %v", info.NumPending, err)
		}
		stored["m "+string(m.Data())] = true
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	return stored
}

// TestKillOften measures how long one joined process cannot write.
func TestKillOften(t *testing.T) {
	for range 3 {
		dir := t.TempDir()
		host := enginetest.Start(t, dir, "")
		e := open(t, engine.Options{DataDir: dir, CanHost: true})
		kv := bucket(t, e)
		if _, err := kv.PutString(t.Context(), "before", "v"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		host.Kill()
		within(t, 30*time.Second, "writing again", func() bool {
			_, err := kv.PutString(bounded(t, 5*time.Second), "after", "v")
			return err == nil
		})
		t.Logf("writing again %v after kill -9; host ready in %v", time.Since(start), host.Took)
		if !e.Hosting() {
			t.Error("this process does not host")
		}
		if _, err := kv.Get(t.Context(), "before"); err != nil {
			t.Errorf("what was acknowledged before: %v", err)
		}
	}
}

// TestKilledAlone starts again on what a killed process left.
func TestKilledAlone(t *testing.T) {
	dir := t.TempDir()
	p := enginetest.Start(t, dir, "write")
	lines := []string{p.Line(), p.Line(), p.Line()}
	p.Kill()
	e := open(t, engine.Options{DataDir: dir, CanHost: true})
	if !e.Hosting() {
		t.Fatal("it does not host")
	}
	stored := readAll(t, e)
	for _, line := range append(lines, p.Lines()...) {
		if !stored[line] {
			t.Fatalf("%s was acknowledged and is missing of %s", line, strings.Join(lines, ", "))
		}
	}
}
