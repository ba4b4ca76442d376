package record

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

func TestReasons(t *testing.T) {
	broken := errors.New("it broke")
	for _, tt := range []struct {
		err  error
		want stats.Reason
	}{
		{nil, stats.NoReason},
		{&transport.ServiceError{Code: 500}, stats.NoReason},
		{&transport.NodeError{Err: broken}, stats.Unreachable},
		{&transport.NodeError{Sent: true, Err: broken}, stats.Broken},
		{&transport.NodeError{Sent: true, Err: context.DeadlineExceeded}, stats.Timeout},
		{&transport.NodeError{Sent: true, Err: context.Canceled}, stats.Cancelled},
		{httpmsg.ErrAborted, stats.Cancelled},
		{fmt.Errorf("call: %w", httpmsg.Errorf(503, "no node")), stats.NoNode},
		{httpmsg.Errorf(429, "too many"), stats.Overload},
		{httpmsg.Errorf(413, "too large"), stats.Refused},
		{broken, stats.Other},
	} {
		if got := reason(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestWhatIsRecorded(t *testing.T) {
	n := discovery.NewNode(registry.Node{ID: "n", Address: "127.0.0.1", Port: 1}, "")
	s := discovery.NewService("s", []*discovery.Node{n})
	Try(n, stats.RPC, 200, nil, time.Millisecond)
	Try(n, stats.RPC, 200, &transport.ServiceError{Code: 404}, time.Millisecond)
	Try(n, stats.RPC, 200, &transport.NodeError{Err: errors.New("refused")}, time.Second)
	Request(s, stats.RPC, 502, &transport.NodeError{Err: errors.New("refused")}, 0)
	Request(s, stats.Proxy, 200, nil, time.Second)
	Cut(s, n, &transport.NodeError{Sent: true, Err: errors.New("reset")})
	Cut(s, n, errors.New("the client's connection broke"))
	var node, service stats.Counts
	n.Meter.Read(&node)
	s.Meter.Read(&service)
	if c := node.Classes[stats.RPC]; c[2] != 1 || c[4] != 1 || c[0] != 1 || node.Count() != 2 {
		t.Errorf("the node: %+v", node)
	}
	if r := node.Reasons; r[stats.Unreachable] != 1 || r[stats.Broken] != 1 || r[stats.Cancelled] != 1 {
		t.Errorf("the node's reasons: %v", r)
	}
	if service.Classes[stats.RPC][5] != 1 || service.Classes[stats.Proxy][2] != 1 || service.Count() != 1 || service.Reasons != node.Reasons {
		t.Errorf("the service: %+v", service)
	}
}
