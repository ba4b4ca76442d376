//go:build unix

package e2e

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/micro/sidecar/internal/testserver"
)

// TestEngines shows what must hold whatever the engine. The parts run side by
// side; those on Consul share an agent, so their services have names of their
// own; so do those on one etcd or NATS server.
func TestEngines(t *testing.T) {
	for _, engine := range []struct {
		name string
		open func(*testing.T) (consul string, env []string)
	}{
		{"embedded", func(*testing.T) (string, []string) { return noConsul, nil }},
		{"consul", func(t *testing.T) (string, []string) {
			addr := testserver.Consul(t).Addr
			return addr, registryAt("consul", addr) // named: one that is found has half a second to answer
		}},
		{"etcd", func(t *testing.T) (string, []string) { return noConsul, registryAt("etcd", testserver.Etcd(t).Addr) }},
		{"nats", func(t *testing.T) (string, []string) {
			large := func(o *server.Options) { o.MaxPayload = 8 << 20 } // a server's own is 1 MiB
			return noConsul, registryAt("nats", testserver.NATS(t, large).Addr)
		}},
	} {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			consul, env := engine.open(t)
			for name, part := range map[string]func(*testing.T, world){
				"Curl":                  testCurl,
				"CommandsAsTyped":       testCommandsAsTyped,
				"Recorded2017":          testRecorded2017,
				"ApplicationHealth":     testApplicationHealth,
				"ApplicationCrash":      testApplicationCrash,
				"Advertise":             testAdvertise,
				"TTL":                   testTTL,
				"Watch":                 testWatch,
				"BadInput":              testBadInput,
				"NonsenseNodes":         testNonsenseNodes,
				"NonsenseNodesProxied":  testNonsenseNodesProxied,
				"Stop":                  testStop,
				"SecondSignal":          testSecondSignal,
				"Messages":              testMessages,
				"MessagesAcrossSidecar": testMessagesAcross,
				"LargeMessages":         testLargeMessages,
				"SlowSubscriber":        testSlowSubscriber,
				"SubscriberKilled":      testSubscriberKilled,
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					part(t, newWorld(t, consul).with(env...))
				})
			}
		})
	}
}

// registryAt is the environment of who uses an engine by name.
func registryAt(name, address string) []string {
	return []string{"MICRO_REGISTRY=" + name, "MICRO_REGISTRY_ADDRESS=" + address}
}
