package proxy

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
)

func TestGRPCTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"1n": 1, "20u": 20 * time.Microsecond, "300m": 300 * time.Millisecond, "99999999S": 99999999 * time.Second,
		"2M": 2 * time.Minute, "1H": time.Hour, "0m": 0,
		"": -1, "1": -1, "m": -1, "1s": -1, "-1S": -1, "100000000S": -1, "99999999H": -1, "1.5S": -1,
	} {
		if got, ok := grpcTimeout(value); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", value, got, ok)
		}
	}
}

// A node's CANCEL is the deadline when that is over, and the node's own wish
// before.
func TestStreamsResetAtTheDeadline(t *testing.T) {
	broken := func(code uint32) error {
		return &transport.NodeError{Addr: "node", Sent: true, Err: &transport.ResetError{Code: code}}
	}
	gone := &transport.NodeError{Addr: "node", Sent: true, Err: errors.New("the node closed it")}
	for _, test := range []struct {
		timeout string
		err     error
		status  int
	}{
		{"300m", broken(8), grpcDeadlineExceeded}, {"2S", broken(8), grpcCancelled}, {"", broken(8), grpcCancelled},
		{"300m", broken(2), grpcInternal}, {"300m", gone, grpcUnavailable},
	} {
		p := &passage{r: &httpmsg.Request{}, begun: discovery.Now() - int64(time.Second)}
		if test.timeout != "" {
			p.r.Header.Add("Grpc-Timeout", test.timeout)
		}
		err := p.outOfTime(test.err)
		if late := errors.Is(err, context.DeadlineExceeded); late != (test.status == grpcDeadlineExceeded) || brokenStatus(err) != test.status {
			t.Errorf("%q, %v: %v with %d", test.timeout, test.err, err, brokenStatus(err))
		}
	}
}
