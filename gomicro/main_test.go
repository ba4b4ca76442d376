package gomicro_test

import (
	"testing"

	"go.uber.org/goleak"
)

// What go-micro leaves behind is not held against the adapters: its memory
// registry never ends its clock, its http broker neither closes the
// connections it made nor those that came in.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("go-micro.dev/v5/registry.(*memRegistry).ttlPrune"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
	)
}
