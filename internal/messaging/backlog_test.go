package messaging

import (
	"fmt"
	"strings"
	"testing"
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
			if got := f.backlog.bytes.Load(); got > most+subscribers*2*body {
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
	f.eventually("nothing waits", func() bool { return f.Counts().Subscribers == 1 && f.backlog.bytes.Load() == 0 })
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
