// Package bound ends the wait for clients of engines that know no contexts, or
// no more of one than its deadline.
package bound

import "context"

// Call calls f and gives up on it when ctx ends. What f does then goes on: it
// has to end by itself, with its connection or with a timeout of its own.
func Call[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
