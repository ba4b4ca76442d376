package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micro/sidecar/bench/internal/process"
)

// sample is what one measurement under load gave.
type sample struct {
	rate     float64       // requests a second
	cpu      float64       // microseconds of the sidecar's CPU time a request
	p50, p99 time.Duration // of the whole way
}

// load drives a sidecar with keep-alive connections for a while. The requests
// of a connection go to the services 0 to services-1 in turn.
func (f *field) load(ctx context.Context, s *subject, services int) (sample, error) {
	before, err := process.CPUTime(s.PID)
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	times := make([][]time.Duration, f.connections)
	group, ctx := errgroup.WithContext(ctx)
	for c := range times {
		group.Go(func() (err error) {
			times[c], err = drive(ctx, s.Address, begun.Add(f.length), c*services/f.connections, services)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return sample{}, err
	}
	took := time.Since(begun)
	after, err := process.CPUTime(s.PID)
	if err != nil {
		return sample{}, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	n := len(all)
	return sample{
		rate: float64(n) / took.Seconds(),
		cpu:  float64((after - before).Microseconds()) / float64(n),
		p50:  all[n/2], p99: all[n*99/100],
	}, nil
}

// drive makes requests on one connection, one after the other, until end.
func drive(ctx context.Context, address string, end time.Time, service, services int) ([]time.Duration, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end.Add(time.Minute)); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	var times []time.Duration
	in, out := bufio.NewReader(conn), []byte(nil)
	for begun := time.Now(); begun.Before(end) || len(times) == 0; service++ {
		out = fmt.Appendf(out[:0], "GET /s%d/x HTTP/1.1\r\nHost: localhost\r\nMicro-Handler: proxy\r\n\r\n", service%services)
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		if err := skipAnswer(in); err != nil {
			return nil, fmt.Errorf("GET /s%d/x: %w", service%services, err)
		}
		now := time.Now()
		times = append(times, now.Sub(begun))
		begun = now
	}
	return times, nil
}

// skipAnswer reads a 200 with a Content-Length.
func skipAnswer(in *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("the answer is %q", line)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("the answer has no Content-Length")
	}
	_, err := in.Discard(length)
	return err
}
