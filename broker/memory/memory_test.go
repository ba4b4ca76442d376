package memory_test

import (
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/memory"
	"go.uber.org/goleak"
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
