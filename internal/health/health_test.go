package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func server(t *testing.T, status func(n int) int) (*httptest.Server, *atomic.Int64) {
	var probes atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status(int(probes.Add(1))))
	}))
	t.Cleanup(s.Close)
	return s, &probes
}

func TestProbe(t *testing.T) {
	for _, status := range []int{200, 204, 302, 404, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s, _ := server(t, func(int) int { return status })
			r := New(Check{URL: s.URL, Timeout: 20 * time.Second}).Probe(t.Context())
			if r.Status != status || (r.Err == nil) != (status == 200) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestProbeWithoutAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, says nothing
	if err != nil {
		t.Fatal(err)
	}
	p := New(Check{URL: "http://" + l.Addr().String(), Timeout: 50 * time.Millisecond})
	if r := p.Probe(t.Context()); r.Err == nil || r.Status != 0 {
		t.Errorf("a silent application: %+v", r)
	}
	l.Close()
	p = New(Check{URL: "http://" + testserver.DeadAddr(t), Timeout: 10 * time.Second})
	if r := p.Probe(t.Context()); r.Err == nil || r.Status != 0 {
		t.Errorf("a dead application: %+v", r)
	}
}

// The application may listen on a unix socket.
func TestProbeOnUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := dir + "/app.sock"
	probe := func(url string) Result {
		t.Helper()
		return New(Check{URL: url, Timeout: 10 * time.Second}).Probe(t.Context())
	}
	if r := probe("http://unix:" + socket); r.Err == nil || r.Status != 0 {
		t.Errorf("a socket that is not there: %+v", r)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "localhost" || r.URL.String() != "/health?of=app" {
			w.WriteHeader(http.StatusNotFound)
		}
	})}}
	s.Start()
	t.Cleanup(s.Close)
	for url, want := range map[string]int{":/health?of=app": 200, ":/": 404, "": 404} {
		if r := probe("http://unix:" + socket + url); r.Status != want {
			t.Errorf("%q: %+v, want %d", url, r, want)
		}
	}
}

// Each probe connects anew, so that a dead listener with a live connection
// does not pass.
func TestProbeUsesFreshConnections(t *testing.T) {
	var mu sync.Mutex
	peers := map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		peers[r.RemoteAddr] = true
		mu.Unlock()
	}))
	defer s.Close()
	p := New(Check{URL: s.URL, Timeout: 20 * time.Second})
	for range 3 {
		if r := p.Probe(t.Context()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if len(peers) != 3 {
		t.Errorf("3 probes used %d connections", len(peers))
	}
}

func TestTheFirstProbeIsTold(t *testing.T) {
	s, _ := server(t, func(int) int { return 503 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	New(Check{URL: s.URL, Timeout: 20 * time.Second, Interval: time.Hour, Fall: 3, Rise: 2}).Run(ctx, func(healthy bool, r Result) {
		if healthy || r.Status != 503 {
			t.Errorf("told %v, %+v", healthy, r)
		}
		cancel()
	})
}

func TestThresholds(t *testing.T) {
	// ok: up at once; 2 bad of fall 3: stays; 3 bad: down; 1 good of rise 2, bad,
	// then 2 good: up.
	script := "1" + "001" + "000" + "10" + "11"
	s, probes := server(t, func(n int) int {
		if n <= len(script) && script[n-1] == '0' {
			return 500
		}
		return 200
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type event struct {
		healthy bool
		probe   int64
	}
	var events []event
	p := New(Check{URL: s.URL, Timeout: 20 * time.Second, Interval: time.Millisecond, Fall: 3, Rise: 2})
	p.Run(ctx, func(healthy bool, _ Result) {
		events = append(events, event{healthy, probes.Load()})
		if len(events) == 3 {
			cancel()
		}
	})
	want := []event{{true, 1}, {false, 7}, {true, 11}}
	if fmt.Sprint(events) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", events, want)
	}
}
