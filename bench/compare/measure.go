package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// sample is one measurement of one hop.
type sample struct {
	rate     float64       // requests a second
	cpu      float64       // microseconds of the hop's CPU time a request
	p50, p99 time.Duration // of the whole way
	rss      float64       // megabytes (10^6), after it
}

// measure drives a hop for a while. An answer that is not 2xx, or a connection
// that breaks, is an error: a fast refusal is no result.
func measure(ctx context.Context, h hop, connections int, length time.Duration) (sample, error) {
	before, err := cpuTime(h.pid)
	if err != nil {
		return sample{}, err
	}
	args := []string{"-t1", "-c" + strconv.Itoa(connections), fmt.Sprintf("-d%.0fs", max(length.Seconds(), 1)), "--latency"}
	if h.script != "" {
		args = append(args, "-s", h.script)
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, h.url)...).CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	after, err := cpuTime(h.pid)
	if err != nil {
		return sample{}, err
	}
	if bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
		return sample{}, fmt.Errorf("%s failed under load:\n%s", h.name, out)
	}
	s, requests, err := parse(string(out))
	if err != nil {
		return sample{}, fmt.Errorf("%w\n%s", err, out)
	}
	s.cpu = float64((after - before).Microseconds()) / requests
	s.rss, err = resident(h.pid)
	return s, err
}

var (
	requestsLine = regexp.MustCompile(`(\d+) requests in`)
	rateLine     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	p50Line      = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)$`)
	p99Line      = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)$`)
)

// parse reads what wrk prints.
func parse(out string) (s sample, requests float64, err error) {
	for _, read := range []struct {
		line *regexp.Regexp
		set  func(string) error
	}{
		{requestsLine, func(t string) (err error) { requests, err = strconv.ParseFloat(t, 64); return err }},
		{rateLine, func(t string) (err error) { s.rate, err = strconv.ParseFloat(t, 64); return err }},
		{p50Line, func(t string) (err error) { s.p50, err = time.ParseDuration(t); return err }},
		{p99Line, func(t string) (err error) { s.p99, err = time.ParseDuration(t); return err }},
	} {
		found := read.line.FindStringSubmatch(out)
		if found == nil {
			return s, 0, fmt.Errorf("wrk printed nothing like %s", read.line)
		}
		if err := read.set(found[1]); err != nil {
			return s, 0, err
		}
	}
	if requests == 0 {
		return s, 0, fmt.Errorf("wrk got no answer")
	}
	return s, requests, nil
}

// cpuTime is the CPU time of a process, user and system, to 10 ms (proc(5)).
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; utime and stime are the 12th
	// and 13th fields behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

var rssLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	found := rssLine.FindSubmatch(status)
	if found == nil {
		return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
	}
	kb, err := strconv.ParseFloat(string(found[1]), 64)
	return kb * 1024 / 1e6, err
}

// print prints the table for one number of connections; the first hop is what
// the others are held against.
func print(connections int, hops []hop, results [][]sample) error {
	fmt.Printf("%d connections\n", connections)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "hop\trequests/s\tratio\tCPU µs\tratio\tp50\tratio\tp99\tratio\tMB\t")
	for i, h := range hops {
		own, base := results[i], results[0]
		rate := func(s sample) float64 { return s.rate }
		cpu := func(s sample) float64 { return s.cpu }
		p50 := func(s sample) float64 { return float64(s.p50.Microseconds()) }
		p99 := func(s sample) float64 { return float64(s.p99.Microseconds()) }
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.1f\t%.2f\t%.0fµs\t%.2f\t%.0fµs\t%.2f\t%.0f\t\n", h.name,
			median(own, rate), ratio(own, base, rate), median(own, cpu), ratio(own, base, cpu),
			median(own, p50), ratio(own, base, p50), median(own, p99), ratio(own, base, p99),
			median(own, func(s sample) float64 { return s.rss }))
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return middle(values)
}

// ratio is the median of the rounds' ratios.
func ratio(own, base []sample, of func(sample) float64) float64 {
	values := make([]float64, len(own))
	for i := range own {
		values[i] = of(own[i]) / of(base[i])
	}
	return middle(values)
}

func middle(values []float64) float64 {
	slices.SortFunc(values, cmp.Compare[float64])
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
