package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micro/sidecar/bench/internal/process"
)

// writers is how many registrations are made at a time.
const writers = 16

// registration is a service as POST /registry takes it. The nodes are one
// server under several loopback addresses: to the sidecar, different ones.
func registration(service, nodes, port int) string {
	var list []string
	for n := range nodes {
		list = append(list, fmt.Sprintf(`{"Id":"s%d-%d","Address":"127.0.0.%d","Port":%d,"Metadata":{"zone":"a"}}`, service, n, n+1, port))
	}
	return fmt.Sprintf(`{"Name":"go.micro.srv.s%d","Version":"1","Nodes":[%s]}`, service, strings.Join(list, ","))
}

// register registers all services of a subject and returns how long it took.
func (f *field) register(ctx context.Context, s *subject) (time.Duration, error) {
	begun := time.Now()
	err := each(ctx, s.services, writers, func(ctx context.Context, i int) error {
		return ask(ctx, s.Sidecar, http.MethodPost, "/registry", registration(i, f.nodes, f.old))
	})
	return time.Since(begun), err
}

// use makes one request to every service, so that the sidecar keeps a picture
// of each, and returns how long it took.
func (f *field) use(ctx context.Context, s *subject) (time.Duration, error) {
	begun := time.Now()
	err := each(ctx, s.services, writers, func(ctx context.Context, i int) error {
		return ask(ctx, s.Sidecar, http.MethodGet, fmt.Sprintf("/s%d/x", i), "")
	})
	return time.Since(begun), err
}

// list is the median time of GET /registry. That the engine takes longer than
// the sidecar waits, as it may on a busy machine, is noted and no failure.
func (f *field) list(ctx context.Context, s *subject) (time.Duration, error) {
	return median(f.rounds, func() (time.Duration, error) {
		begun := time.Now()
		answer, err := answerOf(ctx, s.Sidecar, http.MethodGet, "/registry", "", http.StatusOK)
		took := time.Since(begun)
		if err != nil && ctx.Err() == nil {
			s.refused++
			return took, nil
		}
		if err != nil {
			return 0, err
		}
		var names []struct{ Name string }
		if err := json.Unmarshal(answer, &names); err != nil {
			return 0, fmt.Errorf("GET /registry: %w", err)
		}
		if len(names) < s.services {
			return 0, fmt.Errorf("GET /registry lists %d services of %d", len(names), s.services)
		}
		return took, nil
	})
}

// change is the median time from the beginning of a registration that moves a
// service's nodes until a request has been answered at the new address.
func (f *field) change(ctx context.Context, s *subject) (time.Duration, error) {
	port, name := f.old, "old"
	return median(2*f.rounds, func() (time.Duration, error) {
		if port == f.old {
			port, name = f.changed, "new"
		} else {
			port, name = f.old, "old"
		}
		begun := time.Now()
		if err := ask(ctx, s.Sidecar, http.MethodPost, "/registry", registration(0, f.nodes, port)); err != nil {
			return 0, err
		}
		for {
			answer, err := answerOf(ctx, s.Sidecar, http.MethodGet, "/s0/x", "", http.StatusOK)
			if err != nil {
				return 0, err
			}
			if string(answer) == name {
				return time.Since(begun), nil
			}
		}
	})
}

// unknown asks for n paths that no service has, each once.
func (f *field) unknown(ctx context.Context, s *subject, handler string, first, n int) error {
	return each(ctx, n, writers, func(ctx context.Context, i int) error {
		path := fmt.Sprintf("/nowhere-%s-%d/x", handler, first+i)
		_, err := send(ctx, s.Sidecar, http.MethodPost, path, "{}", handler, http.StatusNotFound)
		return err
	})
}

// each calls do with 0 to n-1, some at a time.
func each(ctx context.Context, n, atATime int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atATime)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// median is the middle of n measurements.
func median(n int, measure func() (time.Duration, error)) (time.Duration, error) {
	var times []time.Duration
	for range n {
		took, err := measure()
		if err != nil {
			return 0, err
		}
		times = append(times, took)
	}
	slices.Sort(times)
	return times[n/2], nil
}

func ask(ctx context.Context, s *process.Sidecar, method, path, body string) error {
	_, err := answerOf(ctx, s, method, path, body, http.StatusOK)
	return err
}

func answerOf(ctx context.Context, s *process.Sidecar, method, path, body string, status int) ([]byte, error) {
	return send(ctx, s, method, path, body, "proxy", status)
}
