package httpbroker

import (
	"strconv"

	"github.com/micro/sidecar/registry"
)

// broadcast is the version under which subscriptions without a queue are
// registered; any other version is a queue's name.
const broadcast = "ff.http.broadcast"

// Keys of a node's metadata. subscriptionKey is ours: it tells that nodes in
// several generations are one and the same subscription.
const (
	brokerKey       = "broker"
	topicKey        = "topic"
	secureKey       = "secure"
	subscriptionKey = "subscription"
)

// generation is one of go-micro's ways to do the same thing.
type generation struct {
	// service is the name that subscribers are registered under; perTopic
	// appends the topic to it. Where it does not, the metadata tell the topic.
	service  string
	perTopic bool
	// path is where deliveries are posted to.
	path string
	// header is the key of the message header that carries the topic.
	header string
	// routes tells that a server finds the handler by [topicName], and drops what
	// is without.
	routes bool
}

// topicName is the key by which go-micro's servers know a message's topic.
const topicName = "Micro-Topic"

// generations lists them, the newest first: a subscription that is found in
// several is served in the first of them.
func generations() [3]generation {
	return [3]generation{
		{service: "micro.http.broker", path: "/", header: topicName},                     // v2.5 to v6
		{service: "go.micro.http.broker", path: "/_sub", header: ":topic", routes: true}, // v1.18
		{service: "topic:", perTopic: true, path: "/_sub", header: ":topic"},             // 2017 to v1.11
	}
}

// name is the service that the subscribers of topic are registered under.
func (g generation) name(topic string) string {
	if g.perTopic {
		return g.service + topic
	}
	return g.service
}

// registration describes a subscription of ours the way subscribers of this
// generation do. The id is unique over all generations, because some engines
// want that. Publishers of no generation look into it, so the topic, which
// engines may not be able to hold there, stays out of it.
func (g generation) registration(n int, s *subscription, host string, port int) registry.Service {
	metadata := map[string]string{secureKey: "false", subscriptionKey: s.id}
	if !g.perTopic {
		metadata[brokerKey] = "http"
		metadata[topicKey] = s.topic
	}
	version := s.queue
	if version == "" {
		version = broadcast
	}
	return registry.Service{
		Name:    g.name(s.topic),
		Version: version,
		Nodes: []registry.Node{{
			ID: "broker-" + s.id + "." + strconv.Itoa(n), Address: host, Port: port, Metadata: metadata,
		}},
	}
}

// serves tells whether the node is a subscriber of the topic.
func (g generation) serves(n registry.Node, topic string) bool {
	return g.perTopic || n.Metadata[brokerKey] == "http" && n.Metadata[topicKey] == topic
}
