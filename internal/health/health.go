// Package health probes the application and decides, by thresholds, when it
// counts as healthy. What follows from that (registration, delivery) is the
// caller's.
package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Check is an HTTP probe. Healthy is an answer with status 200 within Timeout.
type Check struct {
	URL      string        // http or https; http://unix:/PATH:/PATH-OF-URL looks at a unix socket
	Interval time.Duration // from the end of one probe to the begin of the next
	Timeout  time.Duration
	Fall     int // failures in a row after which a healthy application is not
	Rise     int // successes in a row after which it is healthy again
}

// Result is what one probe saw.
type Result struct {
	// Status is the answer's HTTP status, 0 when there was none.
	Status int
	// Err says why the probe failed; nil means that it passed.
	Err error
}

// Prober runs a check. Its methods are safe for concurrent use.
type Prober struct {
	check  Check
	client *http.Client
}

// New makes a prober. Each probe opens a connection of its own: one that was
// kept alive would say nothing about whether the application still listens.
func New(c Check) *Prober {
	transport := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	if path, url, ok := Unix(c.URL); ok {
		c.URL = url
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	return &Prober{check: c, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Unix takes apart the URL of a probe on a unix socket, spelled as nginx does:
// "http://unix:/run/app.sock:/health" is "http://localhost/health" asked on
// /run/app.sock. The last ":/" divides the two paths; without it the URL's is "/".
func Unix(probe string) (path, url string, ok bool) {
	path, ok = strings.CutPrefix(probe, "http://unix:")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", "", false
	}
	target := "/"
	if at := strings.LastIndex(path, ":/"); at > 0 {
		path, target = path[:at], path[at+1:]
	}
	return path, "http://localhost" + target, true
}

// Probe looks once.
func (p *Prober) Probe(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, p.check.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.check.URL, nil)
	if err != nil {
		return Result{Err: fmt.Errorf("health check: %w", err)}
	}
	req.Header.Set("User-Agent", "micro-sidecar")
	resp, err := p.client.Do(req)
	if err != nil {
		return Result{Err: fmt.Errorf("health check: %w", err)}
	}
	defer resp.Body.Close()
	// An answer whose body never ends is no answer, and a long one is not read.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return Result{Err: fmt.Errorf("health check: body: %w", err)}
	}
	if resp.StatusCode != http.StatusOK {
		return Result{resp.StatusCode, fmt.Errorf("health check answered %s", resp.Status)}
	}
	return Result{Status: resp.StatusCode}
}

// Run probes until ctx ends and calls changed, from this goroutine, whenever
// the application becomes healthy or stops being so, and after the first probe
// in any case. It begins as not healthy; the first good probe is enough to be
// healthy for the first time.
func (p *Prober) Run(ctx context.Context, changed func(healthy bool, r Result)) {
	healthy, streak, need := false, 0, 1
	for first := true; ; first = false {
		r := p.Probe(ctx)
		if ctx.Err() != nil {
			return
		}
		if first && r.Err != nil {
			changed(false, r)
		}
		if (r.Err == nil) != healthy {
			streak++
		} else {
			streak = 0
		}
		if streak >= need {
			healthy, streak = !healthy, 0
			need = p.check.Rise
			if healthy {
				need = p.check.Fall
			}
			changed(healthy, r)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.check.Interval):
		}
	}
}
