// Package held is what drivers do with the messages that a member of a durable
// queue holds, whatever their engine. It owns no engine and no connection.
package held

import (
	"context"
	"errors"
	"slices"

	"github.com/micro/sidecar/broker"
)

// ReturnAll gives messages back, one after the other. One that was settled or
// has lapsed meanwhile is no error.
func ReturnAll(ctx context.Context, all []*broker.Held) error {
	var errs []error
	for _, h := range all {
		if err := h.Return(ctx); err != nil && !errors.Is(err, broker.ErrSettled) && !errors.Is(err, broker.ErrLapsed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Ready is what a member has from its engine and has not given out yet, and
// whether it has lost its turn in an ordered queue. The zero value is empty. It
// is for one goroutine at a time.
type Ready struct {
	all  []*broker.Held
	lost bool
}

// Add puts a message behind the others.
func (r *Ready) Add(held *broker.Held) { r.all = append(r.all, held) }

// Any tells that Take has something to return.
func (r *Ready) Any() bool { return r.lost || len(r.all) > 0 }

// Len is how many messages there are.
func (r *Ready) Len() int { return len(r.all) }

// Take returns the first message, [broker.ErrLapsed] once when the turn was
// lost, or neither.
func (r *Ready) Take() (*broker.Held, error) {
	if r.lost {
		r.lost = false
		return nil, broker.ErrLapsed
	}
	held, _ := r.Next()
	return held, nil
}

// Next returns the first message for [broker.Eager], which leaves it to Take to
// say that the turn was lost.
func (r *Ready) Next() (*broker.Held, bool) {
	if r.lost || len(r.all) == 0 {
		return nil, false
	}
	held := r.all[0]
	r.all[0] = nil // let it go
	r.all = r.all[1:]
	return held, true
}

// Lose empties it: the turn was lost.
func (r *Ready) Lose() { r.all, r.lost = nil, true }

// Clear empties it and returns what was there.
func (r *Ready) Clear() []*broker.Held {
	all := r.all
	r.all = nil
	return all
}

// Has tells that a message is there.
func (r *Ready) Has(held *broker.Held) bool { return slices.Contains(r.all, held) }

// Drop takes a message out, if it is there.
func (r *Ready) Drop(held *broker.Held) {
	if i := slices.Index(r.all, held); i >= 0 {
		r.all = slices.Delete(r.all, i, i+1)
	}
}
