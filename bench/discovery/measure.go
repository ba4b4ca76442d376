package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
	"github.com/micro/sidecar/bench/internal/services"
)

// useLimit is the time for a change to be used.
const useLimit = 30 * time.Second

// field is one engine under measurement.
type field struct {
	options
	engine         *engine
	writer, reader *process.Sidecar
	backends       [2]*services.Backend
	client         *http.Client
}

// measure measures one engine.
func measure(ctx context.Context, o options, dir, name string) (r row, err error) {
	e, err := startEngine(ctx, name, dir)
	if err != nil {
		return r, err
	}
	defer e.stop()
	f := &field{options: o, engine: e, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: o.writers + o.connections}}}
	defer f.client.CloseIdleConnections()
	for i := range f.backends {
		b, err := services.StartBackend()
		if err != nil {
			return r, err
		}
		defer func() { _ = b.Close() }() // all was asked
		f.backends[i] = b
	}
	if f.writer, err = process.Start(ctx, o.micro, dir, append([]string{"--log_level=error"}, e.direct...)...); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, f.writer.Stop()) }()
	flags := e.direct
	if e.relay != nil {
		flags = at(name, e.relay.address)
	}
	if f.reader, err = process.Start(ctx, o.micro, dir, append([]string{"--log_level=error", "--handler=proxy"}, flags...)...); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, f.reader.Stop()) }()
	r.engine = name
	return r, f.fill(ctx, &r)
}

// fill measures all that a row holds.
func (f *field) fill(ctx context.Context, r *row) error {
	command.Progress("%s: registering", r.engine)
	begun := time.Now()
	if err := f.all(ctx, func(ctx context.Context, i int) error { return f.register(ctx, i, 0) }); err != nil {
		return err
	}
	r.registered = time.Since(begun)
	command.Progress("%s: using everything", r.engine)
	if err := f.all(ctx, func(ctx context.Context, i int) error { _, err := f.call(ctx, i); return err }); err != nil {
		return err
	}
	command.Progress("%s: idle", r.engine)
	var err error
	if r.idle, err = f.sent(ctx, f.length, nil); err != nil {
		return err
	}
	command.Progress("%s: load", r.engine)
	if r.loaded, err = f.sent(ctx, f.length, func(ctx context.Context) error { return f.load(ctx, r) }); err != nil {
		return err
	}
	command.Progress("%s: changes", r.engine)
	before, err := process.CPUTime(f.reader.PID)
	if err != nil {
		return err
	}
	begun = time.Now()
	if r.churn, err = f.sent(ctx, 0, func(ctx context.Context) error { return f.change(ctx, r) }); err != nil {
		return err
	}
	after, err := process.CPUTime(f.reader.PID)
	if err != nil {
		return err
	}
	r.cpu = (after - before).Seconds() / time.Since(begun).Seconds()
	r.memory, err = process.Resident(f.reader.PID)
	return err
}

// all does something for every service.
func (f *field) all(ctx context.Context, do func(context.Context, int) error) error {
	return services.Each(ctx, f.services, f.writers, do)
}

// register has the writer register service i, all nodes on one backend.
func (f *field) register(ctx context.Context, i, backend int) error {
	_, err := services.Send(ctx, f.client, "proxy", http.MethodPost, f.writer.URL+"/registry", services.Registration(i, f.nodes, f.backends[backend]), http.StatusOK)
	return err
}

// call calls service i through the reader and returns which backend answered.
func (f *field) call(ctx context.Context, i int) (string, error) {
	return services.Send(ctx, f.client, "proxy", http.MethodGet, f.reader.URL+services.Path(i), "", http.StatusOK)
}

// sent returns how many messages a second go to the engine while something is
// done, or for a while.
func (f *field) sent(ctx context.Context, length time.Duration, do func(context.Context) error) (float64, error) {
	count := func() int64 {
		if f.engine.relay == nil {
			return 0
		}
		return f.engine.relay.messages.Load()
	}
	before, begun := count(), time.Now()
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	var err error
	if do == nil {
		<-ctx.Done()
	} else {
		err = do(ctx)
	}
	return float64(count()-before) / time.Since(begun).Seconds(), err
}

// load calls services in turn until ctx ends.
func (f *field) load(ctx context.Context, r *row) error {
	begun := time.Now()
	counts := make([]int, f.connections)
	var work errgroup.Group
	for c := range counts {
		work.Go(func() error {
			for i := c; ctx.Err() == nil; i++ {
				if _, err := f.call(ctx, i%f.services); err != nil && ctx.Err() == nil {
					return err
				}
				counts[c]++
			}
			return nil
		})
	}
	err := work.Wait()
	for _, n := range counts {
		r.requests += float64(n) / time.Since(begun).Seconds()
	}
	return err
}

// change moves services from one backend to the other at a steady rate, and
// watches some of them until their calls follow.
func (f *field) change(ctx context.Context, r *row) error {
	var mu sync.Mutex
	var took []time.Duration
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(4 * f.writers)
	tick := time.NewTicker(time.Second / time.Duration(f.rate))
	defer tick.Stop()
	begun, made := time.Now(), 0
	for ; time.Since(begun) < f.length && ctx.Err() == nil; made++ {
		<-tick.C
		i, to := made%f.services, 1-made/f.services%2
		watched := made%f.samplesOf == 0
		work.Go(func() error {
			if err := f.register(ctx, i, to); err != nil || !watched {
				return err
			}
			d, err := f.used(ctx, i, f.backends[to].Answer())
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errMissed) {
				r.missed++
				return nil
			}
			took = append(took, d)
			return err
		})
	}
	r.rate = float64(made) / time.Since(begun).Seconds()
	if err := work.Wait(); err != nil {
		return err
	}
	if len(took) == 0 {
		return errMissed
	}
	slices.Sort(took)
	r.p50, r.p99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}

var errMissed = errors.New("a change was not used in time")

// used returns how long it takes until calls of a service reach a backend,
// from the moment at which the engine had the change.
func (f *field) used(ctx context.Context, i int, backend string) (time.Duration, error) {
	begun := time.Now()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		answer, err := f.call(ctx, i)
		switch {
		case err != nil:
			return 0, err
		case answer == backend:
			return time.Since(begun), nil
		case time.Since(begun) > useLimit:
			return 0, errMissed
		}
		<-tick.C
	}
}
