// Package record enters what became of a request in the meters of its service
// and of the nodes that it was tried on. It knows the errors of the data plane;
// it does not count (package stats), and decides no status.
package record

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/transport"
)

// Try notes one try on a node. status is that of the node's answer, unless err
// says another or that there was none; took is how long the answer took, 0 when
// that says nothing about the node.
func Try(n *discovery.Node, p stats.Protocol, status int, err error, took time.Duration) {
	why := reason(err)
	if service := answered(err); service != nil {
		status = service.Code
	} else if err != nil {
		status, took = 0, 0
	}
	n.Meter.Record(p, status, why, took)
}

// Request notes a request to a service: the status its client saw, and what it
// ended with if that was an error.
func Request(s *discovery.Service, p stats.Protocol, status int, err error, took time.Duration) {
	s.Meter.Record(p, status, reason(err), took)
}

// Cut notes that an answer that had begun, and was counted, broke off: the node
// failed, or else the client went away.
func Cut(s *discovery.Service, n *discovery.Node, err error) {
	why := stats.Cancelled
	if node := (*transport.NodeError)(nil); errors.As(err, &node) {
		why = reason(err)
	}
	s.Meter.Fail(why)
	n.Meter.Fail(why)
}

// answered returns the error that a service answered, which is an answer like
// any other; nil when err is none.
func answered(err error) *transport.ServiceError {
	service := (*transport.ServiceError)(nil)
	if err == nil || !errors.As(err, &service) {
		return nil
	}
	return service
}

// reason tells why a request failed.
func reason(err error) stats.Reason {
	if err == nil {
		return stats.NoReason
	}
	var (
		node    *transport.NodeError
		refusal *httpmsg.Error
	)
	switch {
	case answered(err) != nil:
		return stats.NoReason
	case errors.Is(err, context.DeadlineExceeded):
		return stats.Timeout
	case errors.Is(err, context.Canceled), errors.Is(err, httpmsg.ErrAborted):
		return stats.Cancelled
	case errors.As(err, &node) && !node.Sent:
		return stats.Unreachable
	case node != nil:
		return stats.Broken
	case errors.As(err, &refusal):
		return refused(refusal.Status)
	}
	return stats.Other
}

func refused(status int) stats.Reason {
	switch status {
	case http.StatusServiceUnavailable:
		return stats.NoNode
	case http.StatusTooManyRequests:
		return stats.Overload
	}
	return stats.Refused
}
