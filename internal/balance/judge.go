package balance

import (
	"context"
	"errors"
	"net/http"

	"github.com/micro/sidecar/internal/transport"
)

// Judge says what an error of package transport tells about the node that was
// tried, as far as ctx, the request's own, has not ended for its client's
// reasons.
func Judge(ctx context.Context, err error) Result {
	if err == nil {
		return Result{}
	}
	var (
		node    *transport.NodeError
		service *transport.ServiceError
		later   *transport.LaterError
	)
	result := Result{Err: err, Fate: Blameless}
	switch {
	case errors.As(err, &service):
		result.Fate = Answer(service.Code)
	case !errors.As(err, &node) || errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded) && node.Sent:
		result.Fate, result.Timed = Failed, true // that it let the time run out is to its account
	case node.Refused:
		result.Fate = Refused
	case !node.Sent && ctx.Err() == nil:
		result.Fate = Unreached
	case !node.Sent:
	case node.Status != 0:
		result.Fate = Answer(node.Status)
	default:
		result.Fate = Failed
	}
	if errors.As(err, &later) {
		result.RetryAfter = later.After
	}
	return result
}

// Answer says what the status of an answer tells about its node: the ones of a
// gateway tell that there is nobody behind it now, all others are answers.
func Answer(status int) Fate {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Failed
	}
	return Answered
}
