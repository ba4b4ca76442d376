package httpbroker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

func TestRosterKeepsRegistrationsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &counting{Registry: memory.New()}
		roster := newRoster(r, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		go roster.run(ctx)
		defer func() { stop(); synctest.Wait() }()
		s := registry.Service{Name: "s", Version: "q", Nodes: []registry.Node{{ID: "1", Address: "127.0.0.1", Port: 1}}}
		e, err := roster.add(ctx, []registry.Service{s})
		if err != nil {
			t.Fatal(err)
		}
		there := func() bool {
			services, err := r.Registry.Get(ctx, "s")
			return err == nil && len(services) == 1 && len(services[0].Nodes) == 1
		}
		time.Sleep(10 * registerTTL)
		if !there() {
			t.Error("gone in spite of being renewed")
		}
		if n := r.registered(); n > 25 {
			t.Errorf("%d registrations in 10 minutes", n)
		}
		r.fail(true)
		time.Sleep(2 * registerTTL)
		if there() {
			t.Error("the registry kept it though it could not be renewed")
		}
		r.fail(false)
		time.Sleep(registerRetry + time.Second)
		if !there() {
			t.Error("not registered again after the registry came back")
		}
		roster.remove(e)
		time.Sleep(2 * registerTTL)
		if there() {
			t.Error("there after it was removed")
		}
		roster.wait()
	})
}

func TestAdvertised(t *testing.T) {
	bound := &net.TCPAddr{}
	for _, test := range []struct{ listen, advertise, want string }{
		{"127.0.0.1:0", "", "127.0.0.1"},
		{"[::1]:0", "", "::1"},
		{"localhost:0", "", "localhost"},
		{"127.0.0.1:0", "host.example.com", "host.example.com"},
		{"0.0.0.0:0", "[fd00::1]", "fd00::1"},
	} {
		got, err := advertised(Options{Listen: test.listen, Advertise: test.advertise}, bound)
		if err != nil || got != test.want {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
	}
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		got, err := advertised(Options{Listen: listen}, bound)
		if err != nil || net.ParseIP(got) == nil || net.ParseIP(got).IsUnspecified() {
			t.Errorf("%s: %q, %v", listen, got, err)
		}
	}
	addr := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	for want, addrs := range map[string][]net.Addr{
		"127.0.0.1": {addr("127.0.0.1/8"), addr("::1/128"), addr("fe80::1/64")},
		"10.0.0.2":  {addr("127.0.0.1/8"), addr("fd00::2/64"), addr("10.0.0.2/24")},
		"fd00::2":   {addr("fe80::1/64"), addr("fd00::2/64")},
	} {
		if got := reachable(addrs); got != want {
			t.Errorf("%v: %q, want %q", addrs, got, want)
		}
	}
}

func TestListenerInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	b, err := New(Options{Registry: memory.New(), Listen: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	var busy *net.OpError
	if _, err := b.Subscribe(t.Context(), "t", broker.SubscribeOptions{}, nil); !errors.As(err, &busy) {
		t.Errorf("Subscribe with the port in use: %v", err)
	}
}
