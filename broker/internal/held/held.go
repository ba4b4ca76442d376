// Package held is what drivers do with the messages that a member of a durable
// queue holds, whatever their engine. It owns no engine and no connection.
package held

import (
	"context"
	"errors"

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
