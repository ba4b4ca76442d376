package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// failure remembers why the last call failed: to callers the client says no
// more than that their time is over.
type failure struct{ last atomic.Pointer[string] }

func (f *failure) intercept(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoke(ctx, method, request, reply, conn, options...)
	if err == nil {
		f.last.Store(nil)
		return nil
	}
	why := status.Convert(err).Message()
	if _, dialing, ok := strings.Cut(why, "Error while dialing: "); ok {
		why = strings.TrimRight(dialing, `"`)
	}
	f.last.Store(&why)
	return err
}

// explain prefers the context's own error to gRPC's words for it, and adds the
// reason that the client kept to itself.
func (f *failure) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	why := f.last.Load()
	if why == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s", ctx.Err(), *why)
}
