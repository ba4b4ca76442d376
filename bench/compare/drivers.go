package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// driver makes requests for a while.
type driver func(ctx context.Context, f *field, r row, h hop, url string, length time.Duration) (load, error)

// load is what a driver measured.
type load struct {
	requests float64
	rate     float64       // requests a second
	p50, p99 time.Duration // of the whole way
}

// wrk drives HTTP/1.1 with one thread. An answer that is not 2xx, or a
// connection that breaks, is an error: a fast refusal is no result.
func wrk(ctx context.Context, f *field, r row, h hop, url string, length time.Duration) (load, error) {
	args := []string{"-t1", "-c" + strconv.Itoa(r.connections), "-d" + seconds(length), "--timeout", "20s", "--latency"}
	if h.script != "" {
		args = append(args, "-s", f.path(h.script))
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, url)...).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
		return load{}, fmt.Errorf("failed under load:\n%s", out)
	}
	return parseWrk(string(out))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0fs", max(d.Seconds(), 1)) }

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP50      = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)$`)
	wrkP99      = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)$`)
)

// parseWrk reads what wrk prints.
func parseWrk(out string) (l load, err error) {
	number := func(to *float64) func(string) error {
		return func(t string) (err error) { *to, err = strconv.ParseFloat(t, 64); return err }
	}
	duration := func(to *time.Duration) func(string) error {
		return func(t string) (err error) { *to, err = time.ParseDuration(t); return err }
	}
	for _, read := range []struct {
		line *regexp.Regexp
		set  func(string) error
	}{
		{wrkRequests, number(&l.requests)}, {wrkRate, number(&l.rate)}, {wrkP50, duration(&l.p50)}, {wrkP99, duration(&l.p99)},
	} {
		found := read.line.FindStringSubmatch(out)
		if found == nil {
			return load{}, fmt.Errorf("wrk printed nothing like %s:\n%s", read.line, out)
		}
		if err := read.set(found[1]); err != nil {
			return load{}, err
		}
	}
	if l.requests == 0 {
		return load{}, errors.New("wrk got no answer")
	}
	return l, nil
}

// streams is how many requests h2load has under way on a connection.
const streams = 16

// h2load drives HTTP/2 with one thread.
func h2load(ctx context.Context, f *field, r row, _ hop, url string, length time.Duration) (load, error) {
	log := f.path("h2load.log")
	if err := os.RemoveAll(log); err != nil { // it would be added to
		return load{}, err
	}
	out, err := exec.CommandContext(ctx, "h2load", "-t1", "-c"+strconv.Itoa(r.connections), "-m"+strconv.Itoa(streams),
		"-D", strings.TrimSuffix(seconds(length), "s"), "--log-file="+log, url).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	l, err := parseH2load(string(out))
	if err != nil {
		return load{}, err
	}
	times, err := os.ReadFile(log)
	if err != nil {
		return load{}, err
	}
	l.p50, l.p99, err = percentiles(times)
	return l, err
}

var (
	h2Rate = regexp.MustCompile(`finished in [^,]+, ([\d.]+) req/s`)
	h2Done = regexp.MustCompile(`(\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2Good = regexp.MustCompile(`status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx`)
)

// parseH2load reads what h2load prints.
func parseH2load(out string) (l load, err error) {
	rate, done, good := h2Rate.FindStringSubmatch(out), h2Done.FindStringSubmatch(out), h2Good.FindStringSubmatch(out)
	if rate == nil || done == nil {
		return load{}, fmt.Errorf("h2load printed no result:\n%s", out)
	}
	if good == nil || !slices.Equal(done[2:], []string{"0", "0", "0"}) || done[1] == "0" {
		return load{}, fmt.Errorf("failed under load:\n%s", out)
	}
	if l.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return load{}, err
	}
	l.requests, err = strconv.ParseFloat(done[1], 64)
	return l, err
}

// percentiles reads h2load's log: a line a request, with its start, its status
// and its time in microseconds.
func percentiles(log []byte) (p50, p99 time.Duration, err error) {
	var times []int
	for lines := bufio.NewScanner(bytes.NewReader(log)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return 0, 0, fmt.Errorf("h2load logged %q", lines.Text())
		}
		n, err := strconv.Atoi(fields[2])
		if err != nil {
			return 0, 0, fmt.Errorf("h2load logged %q", lines.Text())
		}
		times = append(times, n)
	}
	if len(times) == 0 {
		return 0, 0, errors.New("h2load logged no request")
	}
	slices.Sort(times)
	at := func(percent int) time.Duration {
		return time.Duration(times[(len(times)-1)*percent/100]) * time.Microsecond
	}
	return at(50), at(99), nil
}
