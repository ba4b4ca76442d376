package balance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func service(n int) *discovery.Service {
	var nodes []*discovery.Node
	for i := range n {
		nodes = append(nodes, discovery.NewNode(registry.Node{ID: fmt.Sprintf("svc-%04d", i), Address: "127.0.0.1", Port: 1 + i}, ""))
	}
	return discovery.NewService("svc", nodes)
}

// without is the snapshot that follows s when a node leaves.
func without(s *discovery.Service, at int) *discovery.Service {
	next := discovery.NewService(s.Name, slices.Delete(slices.Clone(s.Nodes), at, at+1))
	next.Account = s.Account
	return next
}

var pickers = map[string]Picker{
	"p2c": P2C, "roundrobin": RoundRobin, "leastrequest": LeastRequest, "random": Random, "hash": Hash,
}

// chiSquare fails the test when counts of what should be equally likely differ
// by more than chance makes them but once in a million runs or less.
func chiSquare(t *testing.T, what string, counts []int) {
	t.Helper()
	total := 0
	for _, c := range counts {
		total += c
	}
	want, sum := float64(total)/float64(len(counts)), 0.0
	for _, c := range counts {
		sum += (float64(c) - want) * (float64(c) - want) / want
	}
	// The Laurent-Massart bound of a chi-square variable's tail, for e^-15.
	if k := float64(len(counts) - 1); sum > k+2*sqrt(k*15)+2*15 {
		t.Errorf("%s: chi-square %.1f with %.0f degrees of freedom: %v", what, sum, k, counts)
	}
}

func TestNodesThatAreAlikeShareAlike(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 5, 10, 65, 200} {
				s := service(size)
				counts := make([]int, size)
				for i := range 500 * size {
					n := pick(s, discovery.Hash(fmt.Sprint("10.0.0.", i)), nil)
					counts[slices.Index(s.Nodes, n)]++
				}
				chiSquare(t, fmt.Sprint(size, " nodes"), counts)
			}
		})
	}
}

func TestTriedNodesAreNotPicked(t *testing.T) {
	for name, pick := range pickers {
		t.Run(name, func(t *testing.T) {
			for _, key := range []uint64{0, 42} {
				s := service(9)
				var tried []*discovery.Node
				for range s.Nodes {
					n := pick(s, key, tried)
					if n == nil || slices.Contains(tried, n) {
						t.Fatalf("picked %v, tried before: %v", n, tried)
					}
					tried = append(tried, n)
				}
				if n := pick(s, key, tried); n != nil {
					t.Errorf("picked %s, all were tried", n.ID)
				}
				if n := pick(service(0), key, nil); n != nil {
					t.Errorf("picked %v of none", n)
				}
			}
		})
	}
}

func TestPickersDoNotAllocate(t *testing.T) {
	s := service(10)
	for name, pick := range pickers {
		if n := testing.AllocsPerRun(1000, func() { pick(s, 42, nil) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	b := &Balancer{Pick: P2C, Retries: 1, Limit: NewLimit(1)}
	count := 0
	n := testing.AllocsPerRun(1000, func() {
		_ = b.Do(context.Background(), s, Request{Repeatable: true, Timeout: time.Second}, func(Try) Result { count++; return Result{Timed: true} })
	})
	if n != 0 || count == 0 {
		t.Errorf("Do allocates %v times", n)
	}
}

func TestNew(t *testing.T) {
	for _, name := range append(Selectors(), "hash:X-User", "hash:x_1.~") {
		if b, err := New(name); err != nil || b.Pick == nil || (b.key != nil) != (strings.HasPrefix(name, "hash")) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
	for _, name := range []string{"", "best", "hash:", "hash:a b", "hash:ü", "hash:a:b", "p2c:X-User", "P2C"} {
		if _, err := New(name); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestKey(t *testing.T) {
	key := func(selector string, r *httpmsg.Request) uint64 {
		b, err := New(selector)
		if err != nil {
			t.Fatal(err)
		}
		return b.Key(r)
	}
	request := func(addr, user string) *httpmsg.Request {
		r := &httpmsg.Request{RemoteAddr: addr, Host: "a.example"}
		if user != "" {
			r.Header.Add("x-user", user)
		}
		return r
	}
	a := key("hash", request("10.0.0.1:1000", "ann"))
	for name, same := range map[string]uint64{
		"another port":        key("hash", request("10.0.0.1:2000", "bob")),
		"the field is absent": key("hash:X-User", request("10.0.0.1:1000", "")),
		"another field":       key("hash:X-Client", request("10.0.0.1:1000", "ann")),
	} {
		if same != a {
			t.Errorf("%s: another key", name)
		}
	}
	for name, other := range map[string]uint64{
		"another client": key("hash", request("10.0.0.2:1000", "")),
		"IPv6":           key("hash", request("[::1]:1000", "")),
		"by field":       key("hash:X-User", request("10.0.0.1:1000", "ann")),
		"by host":        key("hash:Host", request("10.0.0.1:1000", "ann")),
		"no hash":        key("p2c", request("10.0.0.1:1000", "ann")),
		"Unix socket":    key("hash", request("@", "ann")),
		"no address":     key("hash", request("", "ann")),
	} {
		if other == a {
			t.Errorf("%s: the same key", name)
		}
	}
	if key("hash:X-User", request("10.0.0.1:1", "ann")) != key("hash:x-user", request("10.9.9.9:2", "ann")) {
		t.Error("a field's value is not all that counts")
	}
	for _, addr := range []string{"", "@", "/run/app.sock"} {
		if k := key("hash", request(addr, "")); k != 0 {
			t.Errorf("address %q has a key", addr)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, name := range Selectors() {
		for _, size := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/nodes=%d", name, size), func(b *testing.B) {
				s, pick := service(size), pickers[name]
				for _, n := range s.Nodes {
					observe(n, time.Millisecond, now())
				}
				key := uint64(1)
				b.ReportAllocs()
				for b.Loop() {
					key += 0x9e3779b97f4a7c15
					pick(s, key, nil)
				}
			})
		}
	}
}

func BenchmarkPickParallel(b *testing.B) {
	for _, name := range Selectors() {
		b.Run(name, func(b *testing.B) {
			s, pick := service(10), pickers[name]
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					pick(s, 42, nil)
				}
			})
		})
	}
}

func BenchmarkDo(b *testing.B) {
	s := service(10)
	balancer := &Balancer{Pick: P2C, Retries: 1}
	b.ReportAllocs()
	for b.Loop() {
		_ = balancer.Do(context.Background(), s, Request{Repeatable: true, Timeout: time.Second}, func(Try) Result { return Result{Timed: true} })
	}
}
