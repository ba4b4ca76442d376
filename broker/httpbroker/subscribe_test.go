package httpbroker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// stuck is a registry that takes no registration.
type stuck struct {
	registry.Registry
	asked chan struct{} // gets a token for each
}

func (s stuck) Register(ctx context.Context, _ registry.Service, _ time.Duration) error {
	s.asked <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func TestCloseEndsASubscribeUnderWay(t *testing.T) {
	r := stuck{memory.New(), make(chan struct{}, 8)}
	b := open(t, r)
	failed := make(chan error, 1)
	go func() {
		_, err := b.Subscribe(context.Background(), "t", broker.SubscribeOptions{}, func(broker.Delivery) {})
		failed <- err
	}()
	<-r.asked
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select { // Close has waited for it
	case err := <-failed:
		if !errors.Is(err, broker.ErrClosed) {
			t.Errorf("subscribe: %v, want ErrClosed", err)
		}
	case <-time.After(time.Second):
		t.Error("the subscribe under way goes on")
	}
}
