package main

import (
	"context"
	"net/http"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
	"github.com/micro/sidecar/bench/internal/services"
	"github.com/micro/sidecar/internal/sleep"
)

// subject is a sidecar and what was measured of it.
type subject struct {
	*process.Sidecar
	services int
	client   *http.Client // for everything but the load

	registered, used time.Duration // all services
	listed, changed  time.Duration // medians
	refused          int           // lists that took too long
	known, resident  int64         // bytes, before and after every service was in use
	background       float64       // milliseconds of CPU time a second, without requests
	one, all         []sample      // requests to one service, and to all in turn
}

// field is the sidecars and the two backends.
type field struct {
	options
	old, changed *services.Backend
	subjects     []*subject

	pathBytes   map[string]float64 // memory left of an unknown path, by handler
	unknownRate float64            // of requests for them, a second
}

const (
	rest  = 5 * time.Second  // before memory is read
	quiet = 40 * time.Second // of background work: longer than discovery's look at everything takes to come round
)

func (f *field) measure(ctx context.Context) error {
	for _, s := range f.subjects {
		if err := f.fill(ctx, s); err != nil {
			return err
		}
	}
	command.Progress("%v without requests", quiet)
	if err := f.background(ctx); err != nil {
		return err
	}
	for round := range f.rounds {
		command.Progress("load, round %d of %d", round+1, f.rounds)
		for _, s := range f.subjects {
			sample, err := f.load(ctx, s, 1)
			if err != nil {
				return err
			}
			s.one = append(s.one, sample)
			if sample, err = f.load(ctx, s, s.services); err != nil {
				return err
			}
			s.all = append(s.all, sample)
		}
	}
	for _, s := range f.subjects {
		if err := f.afterwards(ctx, s); err != nil {
			return err
		}
	}
	return f.unknownPaths(ctx)
}

// fill registers the services and uses each once.
func (f *field) fill(ctx context.Context, s *subject) (err error) {
	command.Progress("registering %d services of %d nodes", s.services, f.nodes)
	if s.registered, err = f.register(ctx, s); err != nil {
		return err
	}
	if s.known, err = settled(ctx, s); err != nil {
		return err
	}
	command.Progress("a request to each")
	if s.used, err = f.use(ctx, s); err != nil {
		return err
	}
	s.resident, err = settled(ctx, s)
	return err
}

// background measures what the sidecars do when nobody asks them anything.
func (f *field) background(ctx context.Context) error {
	before := make([]time.Duration, len(f.subjects))
	for i, s := range f.subjects {
		cpu, err := process.CPUTime(s.PID)
		if err != nil {
			return err
		}
		before[i] = cpu
	}
	if err := sleep.For(ctx, quiet); err != nil {
		return err
	}
	for i, s := range f.subjects {
		cpu, err := process.CPUTime(s.PID)
		if err != nil {
			return err
		}
		s.background = milliseconds(cpu-before[i]) / quiet.Seconds()
	}
	return nil
}

// afterwards measures what would disturb the load.
func (f *field) afterwards(ctx context.Context, s *subject) (err error) {
	command.Progress("list and changes with %d services", s.services)
	if s.listed, err = f.list(ctx, s); err != nil {
		return err
	}
	s.changed, err = f.change(ctx, s)
	return err
}

// paths asks the smaller sidecar for paths that lead nowhere and measures what
// memory is left of each of the second half: by then, whatever is bounded has
// grown.
func (f *field) unknownPaths(ctx context.Context) error {
	s := f.subjects[0]
	f.pathBytes = map[string]float64{}
	half := f.paths / 4
	for _, handler := range []string{"proxy", "rpc"} {
		command.Progress("%d unknown paths, %s", 2*half, handler)
		if err := f.unknown(ctx, s, handler, 0, half); err != nil {
			return err
		}
		before, err := settled(ctx, s)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := f.unknown(ctx, s, handler, half, half); err != nil {
			return err
		}
		f.unknownRate = float64(half) / time.Since(begun).Seconds()
		after, err := settled(ctx, s)
		if err != nil {
			return err
		}
		f.pathBytes[handler] = float64(after-before) / float64(half)
	}
	return nil
}

// settled is the resident memory once a sidecar is at rest.
func settled(ctx context.Context, s *subject) (int64, error) {
	if err := sleep.For(ctx, rest); err != nil {
		return 0, err
	}
	return process.Resident(s.PID)
}
