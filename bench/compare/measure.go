package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/micro/sidecar/bench/internal/process"
)

// sample is one measurement of one hop.
type sample struct {
	load
	cpu    float64 // microseconds of the hop's CPU time a request
	peak   float64 // most resident memory meanwhile, in MB (10^6 bytes)
	allocs float64 // allocations a request; -1 when they were not counted
}

// results are a row's samples by the hop's name, one a round.
type results map[string][]sample

// measure drives a hop for a while.
func (f *field) measure(ctx context.Context, r row, h hop, length time.Duration) (s sample, err error) {
	server, ok := f.servers[h.server]
	if !ok {
		return sample{}, fmt.Errorf("no server %s was started", h.server)
	}
	if err := process.ResetPeak(server.pid); err != nil {
		return sample{}, err
	}
	before, err := process.CPUTime(server.pid)
	if err != nil {
		return sample{}, err
	}
	if s.load, err = r.driver(ctx, f, r, h, server.url+h.path, length); err != nil {
		return sample{}, err
	}
	after, err := process.CPUTime(server.pid)
	if err != nil {
		return sample{}, err
	}
	peak, err := process.Peak(server.pid)
	if err != nil {
		return sample{}, err
	}
	s.cpu, s.peak = float64((after-before).Microseconds())/s.requests, float64(peak)/1e6
	s.allocs, err = f.allocs(ctx, r, h, server)
	return s, err
}

// allocs is how many allocations a request costs. They are counted apart, in
// the server that can count: for a second, because they hardly vary.
func (f *field) allocs(ctx context.Context, r row, h hop, server server) (float64, error) {
	if server.counts == "" {
		return -1, nil
	}
	before, err := mallocs(ctx, server.counts)
	if err != nil {
		return 0, err
	}
	l, err := r.driver(ctx, f, r, h, server.counted+h.path, time.Second)
	if err != nil {
		return 0, err
	}
	after, err := mallocs(ctx, server.counts)
	return float64(after-before) / l.requests, err
}

func mallocs(ctx context.Context, url string) (uint64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 64)
}

// What is measured, as a number.
func rate(s sample) float64   { return s.rate }
func cpu(s sample) float64    { return s.cpu }
func p50(s sample) float64    { return float64(s.p50.Microseconds()) }
func p99(s sample) float64    { return float64(s.p99.Microseconds()) }
func peak(s sample) float64   { return s.peak }
func allocs(s sample) float64 { return s.allocs }

// median is the median over the rounds.
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
