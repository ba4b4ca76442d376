package transport

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-micro's memory registry never stops its own.
		goleak.IgnoreAnyFunction("go-micro.dev/v5/registry.(*memRegistry).ttlPrune"),
	)
}

// newClient returns a client that the test closes. It has time to connect: the
// machine may be busy.
func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	if o.DialTimeout == 0 {
		o.DialTimeout = 20 * time.Second
	}
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

// NotSent reports whether err is a failure after which another node may be
// sent the request, see [NodeError].
func NotSent(err error) bool {
	node := (*NodeError)(nil)
	return errors.As(err, &node) && !node.Sent
}
