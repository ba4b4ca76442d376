//go:build unix

package transport

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The node runs in the same process: what it costs is what it costs in all of
// these, so that they can be compared with each other.
func BenchmarkHTTP2(b *testing.B) {
	s := startH2(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte("hello world, hello!\n"))
	})
	header := httpmsg.Header{{Name: "user-agent", Value: "bench"}, {Name: "accept", Value: "*/*"}, {Name: "x-forwarded-for", Value: "127.0.0.1"}}
	b.Run("ours", func(b *testing.B) {
		c := newClient(b, Options{})
		b.ReportAllocs()
		begun := cpu(b)
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, 100)
			for pb.Next() {
				r := get("/hello")
				r.Header = header
				res, err := c.Do(b.Context(), s.peer(), r)
				if err != nil {
					b.Error(err)
					return
				}
				for err == nil {
					_, err = res.Body.Read(buf)
				}
				_ = res.Body.Close()
			}
		})
		b.ReportMetric(float64((cpu(b)-begun).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
	b.Run("net-http", func(b *testing.B) {
		c := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		c.Protocols.SetUnencryptedHTTP2(true)
		defer c.CloseIdleConnections()
		b.ReportAllocs()
		begun := cpu(b)
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r, err := http.NewRequestWithContext(b.Context(), "GET", "http://"+s.addr+"/hello", http.NoBody)
				if err != nil {
					b.Error(err)
					return
				}
				for _, f := range header {
					r.Header.Add(f.Name, f.Value)
				}
				res, err := c.RoundTrip(r)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
		b.ReportMetric(float64((cpu(b)-begun).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
}

func BenchmarkHTTP2Upload(b *testing.B) {
	s := startH2(b, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	c := newClient(b, Options{})
	body := strings.Repeat("x", 1<<20)
	b.SetBytes(1 << 20)
	for range b.N {
		res, err := c.Do(b.Context(), s.peer(), post(strings.NewReader(body), 1<<20))
		if err != nil {
			b.Fatal(err)
		}
		_ = res.Body.Close()
	}
}
