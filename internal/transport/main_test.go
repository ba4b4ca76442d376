package transport

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-micro's memory registry never stops its own.
		goleak.IgnoreAnyFunction("go-micro.dev/v5/registry.(*memRegistry).ttlPrune"),
	)
}

// newClient returns a client that the test closes.
func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	c := New(o)
	t.Cleanup(c.Close)
	return c
}
