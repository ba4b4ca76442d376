package rabbitmq_test

import (
	"testing"

	"go.uber.org/goleak"
)

// go-micro keeps a goroutine of its own from the start on.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }
