package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(*testing.T) broker.Broker { return memory.New() }, brokertest.Options{
		Alone:    true,
		Ordered:  true,
		Limit:    memory.MaxBodySize,
		TooLarge: memory.MaxBodySize + 1,
	})
}
