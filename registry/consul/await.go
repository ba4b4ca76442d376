package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/internal/sleep"
)

// visibleWithin bounds the wait for what the agent was told to reach the
// servers. It takes milliseconds (6 on average, 21 at most, of 200 on a
// server of its own) unless they are away; the agent then goes on trying.
const visibleWithin = 10 * time.Second

// await asks for the instances of a service until they are as they should be.
func (r *Registry) await(ctx context.Context, name string, done func([]*api.ServiceEntry) bool) error {
	bounded, cancel := context.WithTimeout(ctx, visibleWithin)
	defer cancel()
	pause := time.Millisecond
	for {
		entries, _, err := r.entries(bounded, name, &api.QueryOptions{})
		if err == nil && done(entries) {
			return nil
		}
		if err == nil {
			// Not a blocking query: the catalog may have changed between
			// the answer and its index without this service's index moving.
			err = sleep.For(bounded, pause)
			pause = min(2*pause, 250*time.Millisecond)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("the agent took it, but consul's servers did not within %v", visibleWithin)
		case err != nil:
			return err
		}
	}
}

// visible reports whether all that was written is there and well.
func visible(entries []*api.ServiceEntry, written []*api.AgentServiceRegistration) bool {
	byID := make(map[string][]*api.ServiceEntry, len(entries)) // several agents may have one ID
	for _, e := range entries {
		byID[e.Service.ID] = append(byID[e.Service.ID], e)
	}
	for _, want := range written {
		if !slices.ContainsFunc(byID[want.ID], func(e *api.ServiceEntry) bool { return equal(e.Service, want) && !critical(e) }) {
			return false
		}
	}
	return true
}

// absent reports whether every removed ID is there less often than before:
// another agent may have an instance of the same ID.
func absent(before, entries []*api.ServiceEntry, removed []string) bool {
	count := func(entries []*api.ServiceEntry, consulID string) (n int) {
		for _, e := range entries {
			if e.Service.ID == consulID {
				n++
			}
		}
		return n
	}
	return !slices.ContainsFunc(removed, func(consulID string) bool {
		left := count(entries, consulID)
		return left > 0 && left >= count(before, consulID)
	})
}

// statusOf returns the HTTP status of an agent's refusal.
func statusOf(err error) (status int, answered bool) {
	refusal, answered := errors.AsType[api.StatusError](err)
	return refusal.Code, answered
}
