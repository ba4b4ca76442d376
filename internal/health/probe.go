package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// newTarget makes the probe that the check's URL asks for.
func newTarget(c Check) *target {
	if address, ok := strings.CutPrefix(c.URL, tcpScheme); ok {
		return &target{c, connect(address)}
	}
	return &target{c, get(c.URL)}
}

const (
	tcpScheme  = "tcp://"
	unixPrefix = "unix:"
)

// TCP returns the URL of a probe that connects to address, "host:port" or
// "unix:/path".
func TCP(address string) string { return tcpScheme + address }

// connect returns a probe that passes when a connection is made.
func connect(address string) func(context.Context) Result {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		network, address = "unix", path
	}
	return func(ctx context.Context) Result {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return Result{Err: fmt.Errorf("health check: %w", err)}
		}
		_ = conn.Close() // nothing was said
		return Result{}
	}
}

// get returns a probe that passes when url answers 200.
func get(url string) func(context.Context) Result {
	transport := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	if path, target, ok := Unix(url); ok {
		url = target
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) Result {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return Result{Err: fmt.Errorf("health check: %w", err)}
		}
		req.Header.Set("User-Agent", "micro-sidecar")
		resp, err := client.Do(req)
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
