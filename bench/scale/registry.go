package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/micro/sidecar/bench/internal/services"
)

// writers is how many registrations are made at a time.
const writers = 16

// register registers all services of a subject and returns how long it took.
func (f *field) register(ctx context.Context, s *subject) (time.Duration, error) {
	begun := time.Now()
	err := services.Each(ctx, s.services, writers, func(ctx context.Context, i int) error {
		_, err := s.ask(ctx, http.MethodPost, "/registry", services.Registration(i, f.nodes, f.old))
		return err
	})
	return time.Since(begun), err
}

// use makes one request to every service, so that the sidecar keeps a picture
// of each, and returns how long it took.
func (f *field) use(ctx context.Context, s *subject) (time.Duration, error) {
	begun := time.Now()
	err := services.Each(ctx, s.services, writers, func(ctx context.Context, i int) error {
		_, err := s.ask(ctx, http.MethodGet, services.Path(i), "")
		return err
	})
	return time.Since(begun), err
}

// list is the median time of GET /registry. That the engine takes longer than
// the sidecar waits, as it may on a busy machine, is noted and no failure.
func (f *field) list(ctx context.Context, s *subject) (time.Duration, error) {
	return median(f.rounds, func() (time.Duration, error) {
		begun := time.Now()
		answer, err := s.ask(ctx, http.MethodGet, "/registry", "")
		took := time.Since(begun)
		if err != nil && ctx.Err() == nil {
			s.refused++
			return took, nil
		}
		if err != nil {
			return 0, err
		}
		var names []struct{ Name string }
		if err := json.Unmarshal([]byte(answer), &names); err != nil {
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
	at := f.old
	return median(2*f.rounds, func() (time.Duration, error) {
		if at == f.old {
			at = f.changed
		} else {
			at = f.old
		}
		begun := time.Now()
		if _, err := s.ask(ctx, http.MethodPost, "/registry", services.Registration(0, f.nodes, at)); err != nil {
			return 0, err
		}
		for {
			answer, err := s.ask(ctx, http.MethodGet, services.Path(0), "")
			if err != nil {
				return 0, err
			}
			if answer == at.Answer() {
				return time.Since(begun), nil
			}
		}
	})
}

// unknown asks for n paths that no service has, each once.
func (f *field) unknown(ctx context.Context, s *subject, handler string, first, n int) error {
	return services.Each(ctx, n, writers, func(ctx context.Context, i int) error {
		path := fmt.Sprintf("/nowhere-%s-%d/x", handler, first+i)
		_, err := s.send(ctx, http.MethodPost, path, "{}", handler, http.StatusNotFound)
		return err
	})
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

// send sends a request for a handler and returns the body of an answer with
// that status.
func (s *subject) send(ctx context.Context, method, path, body, handler string, status int) (string, error) {
	return services.Send(ctx, s.client, handler, method, s.URL+path, body, status)
}

// ask sends a request and returns the body of an answer with status 200.
func (s *subject) ask(ctx context.Context, method, path, body string) (string, error) {
	return s.send(ctx, method, path, body, "proxy", http.StatusOK)
}
