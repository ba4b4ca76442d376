package gomicro_test

import (
	"testing"

	"go.uber.org/goleak"
)

// go-micro's memory registry never ends its own clock.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go-micro.dev/v5/registry.(*memRegistry).ttlPrune"))
}
