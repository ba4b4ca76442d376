package messaging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
)

// However many subscribers do not read, what waits for them together is
// bounded, the slowest are cut, and who reads misses nothing.
func TestBacklogIsBounded(t *testing.T) {
	const (
		subscribers = 12
		each        = 16      // messages
		body        = 1 << 20 // bytes
		most        = 24 << 20
	)
	f := serve(t, func(o *Options) { o.MaxBuffered, o.MaxBacklog = 64<<20, most })
	var slow []*client
	for i := range subscribers {
		slow = append(slow, f.dial(fmt.Sprint("slow", i), ""))
	}
	good := f.dial("good", "")
	text := strings.Repeat("x", body)
	for n := range each {
		for i := range subscribers {
			f.publish(fmt.Sprint("slow", i), text)
			if got := f.live.bytes.Load(); got > most+subscribers*2*body {
				t.Fatalf("%d MiB wait", got>>20)
			}
		}
		f.publish("good", fmt.Sprint(n))
		if m := good.next(); string(m.Body) != fmt.Sprint(n) {
			t.Fatalf("who reads got %.20q, want %d", m.Body, n)
		}
	}
	if n := f.Counts().Cut; n == 0 || n > subscribers {
		t.Errorf("%d were cut", n)
	}
	for _, c := range slow {
		_ = c.CloseNow()
	}
	f.eventually("nothing waits", func() bool { return f.Counts().Subscribers == 1 && f.live.bytes.Load() == 0 })
}

// So it is with durable subscribers that neither read nor acknowledge: what is
// cut goes back, and who works gets everything.
func TestHeldIsBounded(t *testing.T) {
	const (
		subscribers = 24
		each        = 3
		body        = 1 << 20
		most        = 8 << 20
	)
	e, err := engine.Open(t.Context(), engine.Options{DataDir: t.TempDir(), CanHost: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	k := keepWith(t, e, nats.Options{}, func(o *Options) { o.MaxBacklog = most })
	var idle []*reader
	for i := range subscribers {
		idle = append(idle, k.read(fmt.Sprintf("topic=t&queue=idle%d", i)))
	}
	text := strings.Repeat("x", body)
	k.post("t", text)
	cut := func() bool { return k.Counts().Cut > 0 && k.durables.bytes.Load() <= most }
	k.eventually("somebody was cut", cut)
	good := k.read("topic=t&queue=good&prefetch=1")
	for n := range each {
		k.post("t", text+fmt.Sprint(n))
		m := good.next()
		if got := string(m.Body[len(m.Body)-1]); got != fmt.Sprint(n) {
			t.Fatalf("who works got the end %q, want %d", got, n)
		}
		good.say(`{"Ack":%q}`, m.ID)
		// The message that is being noted comes on top.
		if got := k.durables.bytes.Load(); got > most+(subscribers+1)*2*body/4 {
			t.Errorf("%d MiB are held", got>>20)
		}
	}
	for _, r := range idle {
		_ = r.CloseNow()
	}
	k.eventually("nothing is held", func() bool { return k.Counts().Subscribers == 1 && k.durables.bytes.Load() == 0 })
	for i := range subscribers {
		k.eventually("all is in the queue again", func() bool {
			info := k.info("t", fmt.Sprint("idle", i))
			return info.Lag+info.Held == 1+each
		})
	}
	k.allowance.mu.Lock()
	defer k.allowance.mu.Unlock()
	if got := k.allowance.left; got >= most/2 {
		t.Errorf("%d bytes are left while somebody is there", got)
	}
}

// A topic's frame is in memory once, however many wait for it.
func TestBacklogCountsAFrameOnce(t *testing.T) {
	b := backlog{most: 1 << 20}
	f := &encoded{frame: make([]byte, 1000)}
	for range 2000 {
		b.hold(f)
	}
	if got := b.bytes.Load(); got != 1000 {
		t.Errorf("%d bytes wait, want 1000", got)
	}
	for range 2000 {
		b.release([]*encoded{f})
	}
	if got := b.bytes.Load(); got != 0 {
		t.Errorf("%d bytes wait, want none", got)
	}
}

func TestAllowance(t *testing.T) {
	const total, most, n = 256 << 20, 16 << 20, 2000
	a := allowance{left: total}
	sum, first := int64(0), int64(0)
	var gives []func()
	for i := range n {
		share, give := a.take(most)
		if share < leastShare || share > most {
			t.Fatalf("share %d is of %d bytes", i, share)
		}
		if i == 0 {
			first = share
		}
		sum += share
		gives = append(gives, give)
	}
	if first != most {
		t.Errorf("who is alone gets %d bytes, want %d", first, most)
	}
	if limit := int64(total + n*leastShare); sum > limit {
		t.Errorf("%d subscribers may hold %d bytes, at most %d", n, sum, limit)
	}
	for _, give := range gives {
		give()
	}
	if a.left != total {
		t.Errorf("%d bytes are left, want %d", a.left, total)
	}
	if share, _ := (&allowance{left: total}).take(1000); share != 1000 {
		t.Errorf("asked for 1000, got %d", share)
	}
}
