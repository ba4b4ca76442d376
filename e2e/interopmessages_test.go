//go:build unix

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/micro/sidecar/internal/testserver"
)

// interopBuses are the brokers, and how both sides are told of them. What v1.0's
// plug-ins need cannot be had any more; those of v1.18 end at once with a Go of today.
var interopBuses = []struct {
	name     string // in the table
	theirs   string // go-micro's broker
	registry string // which the broker http needs; for the others each side has its own
	start    func(t *testing.T) (address string)
	env      func(address string) []string // of the sidecar
	durable  bool
	shares   bool // a queue has members on both sides
	plugin   bool // the sidecar is a custom build
	versions []generation
}{
	{"`http`, in Consul", "http", "consul", func(t *testing.T) string { return testserver.Consul(t).Addr },
		func(a string) []string { return registryAt("consul", a) }, false, true, false, []generation{v08, v10, v4, v5}},
	{"`http`, in etcd", "http", "etcd", func(t *testing.T) string { return testserver.Etcd(t).Addr },
		func(a string) []string { return registryAt("etcd", a) }, false, true, false, []generation{v118}},
	{"`nats`", "nats", "", func(t *testing.T) string { return testserver.NATS(t).Addr },
		func(a string) []string { return brokerAt("nats", "nats://"+a) }, true, true, false, []generation{v08, v118, v4, v5}},
	{"`rabbitmq`", "rabbitmq", "", func(t *testing.T) string { return testserver.RabbitMQ(t).Addr },
		func(a string) []string { return brokerAt("rabbitmq", "amqp://"+a) }, true, false, false, []generation{v08, v4, v5}},
	{"go-micro's NATS broker, [plugged in](plugins.md)", "nats", "", plainNATS,
		func(a string) []string { return brokerAt("gonats", a) }, false, true, true, []generation{v118, v4, v5}},
}

func brokerAt(name, address string) []string {
	return []string{"MICRO_REGISTRY=embedded", "MICRO_BROKER=" + name, "MICRO_BROKER_ADDRESS=" + address}
}

// The columns of the table.
const (
	oursToTheirs   = "ours to theirs"
	theirsToLive   = "theirs to ours, live"
	theirsToQueue  = "theirs to ours, durable"
	sharedQueue    = "one queue"
	jsonHandler    = "`curl` to a handler, JSON"
	protoHandler   = "`curl` to a handler, protobuf"
	jsonPublished  = "`client.Publish` to ours, JSON"
	protoPublished = "`client.Publish` to ours, protobuf"
)

var messageForms = []string{oursToTheirs, theirsToLive, theirsToQueue, sharedQueue, jsonHandler, protoHandler, jsonPublished, protoPublished}

// testInteropMessages is about the second table, in docs/messaging.md.
func testInteropMessages(t *testing.T, programs map[string]string) {
	table := newTable(messageForms)
	for _, bus := range interopBuses {
		for _, g := range bus.versions {
			table.add(bus.name, g.version)
		}
	}
	prefix := fmt.Sprintf("go.micro.srv.m%08x.", rand.Uint32())
	t.Run("broker", func(t *testing.T) {
		for _, bus := range interopBuses {
			t.Run(bus.name, func(t *testing.T) {
				t.Parallel()
				address := bus.start(t)
				w := newWorld(t, noConsul).with(bus.env(address)...)
				if bus.plugin {
					w.binary = programs["plugins"]
				}
				s := w.sidecar(t)
				for _, g := range bus.versions {
					t.Run(g.version, func(t *testing.T) {
						name := prefix + strings.ReplaceAll(g.version, ".", "-")
						registry, at := bus.registry, address
						if registry == "" {
							registry, at = g.alone(), ""
						}
						x := &exchange{
							row: table.row(bus.name, g.version), sidecar: s, topic: "interop." + strings.ReplaceAll(g.version, ".", "-") + ".grüße",
							durable: bus.durable, shares: bus.shares,
						}
						x.peer = startPeer(t, programs[g.program()], registry, at, name, "mucp",
							"-broker="+bus.theirs, "-broker_address="+address, "-handle="+x.topic+".typed")
						x.run(t)
					})
				}
			})
		}
	})
	if !t.Failed() {
		table.compare(t, "../docs/messaging.md")
	}
}

// alone is a registry for a service that nobody looks for.
func (g generation) alone() string {
	if g.version == v08.version {
		return "mdns" // it has no other without a server
	}
	return "memory"
}

// exchange is one row: a sidecar and a go-micro service on one broker.
type exchange struct {
	row             func(form string)
	sidecar         *sidecar
	peer            *peer
	topic           string // what the topics of the row begin with
	durable, shares bool
}

func (x *exchange) run(t *testing.T) {
	form := func(name string, test func(t *testing.T)) {
		if t.Run(name, test) {
			x.row(name)
		}
	}
	form(oursToTheirs, x.oursToTheirs)
	form(theirsToLive, x.theirsToLive)
	if x.durable {
		form(theirsToQueue, x.theirsToQueue)
	}
	if x.shares {
		form(sharedQueue, x.sharedQueue)
	} else {
		t.Run("two queues", x.twoQueues)
	}
	form(jsonHandler, func(t *testing.T) { x.handler(t, x.topic+".typed", "application/json", `{"name":"John"}`) })
	form(protoHandler, func(t *testing.T) {
		x.handler(t, x.topic+".typed.proto", "application/protobuf", string(johnInProtobuf(t)))
	})
	form(jsonPublished, func(t *testing.T) {
		body := x.event(t, x.topic+".json", "application/json")
		if !sameJSON(string(body), `{"name":"John"}`) {
			t.Errorf("the body is %q", body)
		}
	})
	form(protoPublished, func(t *testing.T) {
		body := x.event(t, x.topic+".proto", "application/protobuf")
		var v wrapperspb.StringValue
		if err := proto.Unmarshal(body, &v); err != nil || v.Value != "John" {
			t.Errorf("the body is %q: %v", body, err)
		}
	})
}

func johnInProtobuf(t *testing.T) []byte {
	t.Helper()
	body, err := proto.Marshal(wrapperspb.String("John"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// bodies are what a body may be.
var bodies = []string{"text", "", "\x00\xff\xfe{\"Header\":1}", `{"order":1}`, strings.Repeat("long ", 20_000)}

// oursToTheirs publishes by POST, and with names in any case where a frame can.
func (x *exchange) oursToTheirs(t *testing.T) {
	topic := x.topic + ".ours"
	x.subscribes(topic, "")
	x.awaitTheirs(t, topic)
	for i, body := range bodies {
		x.post(topic, body, "K", fmt.Sprintf("v %d ü \"", i), "Empty", "", contentType, "text/x-test").is(t, 200, "")
	}
	for i, m := range x.received(t, topic, len(bodies)) {
		if string(m.Body) != bodies[i] || m.Header["K"] != fmt.Sprintf("v %d ü \"", i) || m.Header[contentType] != "text/x-test" {
			t.Errorf("message %d came as %q %.100q", i, m.Header, m.Body)
		}
		if v, ok := m.Header["Empty"]; !ok || v != "" {
			t.Errorf("message %d has lost an empty header: %q", i, m.Header)
		}
	}
	if !x.durable {
		return
	}
	k := x.sidecar.open("/broker?ack=true&queue=own&topic=" + url.QueryEscape(topic))
	k.send(`{"Publish":{"Header":{"lower-Case":"v"},"Body":"` + base64.StdEncoding.EncodeToString([]byte("framed")) + `"}}`)
	if m := x.received(t, topic, len(bodies)+1)[len(bodies)]; m.Header["lower-Case"] != "v" || string(m.Body) != "framed" {
		t.Errorf("from a frame came %q %q", m.Header, m.Body)
	}
}

// theirHeader is intact only if case, blanks and empty values are.
var theirHeader = map[string]string{"K": "v", "lower-Case": "ü \"x\"", "Empty": "", contentType: "text/x-test"}

// sends has the service publish all bodies. Old services do so in the
// background: it waits for each to arrive.
func (x *exchange) sends(t *testing.T, topic string, next func() message) {
	t.Helper()
	for i, body := range bodies {
		x.publishes(t, topic, theirHeader, body)
		m := next()
		if !maps.Equal(m.Header, theirHeader) || string(m.Body) != body {
			t.Errorf("message %d came as %q %.100q", i, m.Header, m.Body)
		}
	}
}

func (x *exchange) theirsToLive(t *testing.T) {
	topic := x.topic + ".theirs"
	k := x.sidecar.subscribe(topic, "")
	x.awaitOurs(t, topic, k)
	x.sends(t, topic, func() message { return x.message(k) })
}

// theirsToQueue has a durable subscriber that is there, and one that comes
// later.
func (x *exchange) theirsToQueue(t *testing.T) {
	topic := x.topic + ".kept"
	open := func() (*socket, func() message) {
		k := x.sidecar.open("/broker?ack=true&queue=kept&topic=" + url.QueryEscape(topic))
		return k, func() message {
			for {
				var m struct {
					message
					ID string
				}
				if frame := k.next(); json.Unmarshal(frame, &m) != nil || m.ID == "" {
					t.Fatalf("frame %q", frame)
				}
				k.send(fmt.Sprintf(`{"Ack":%q}`, m.ID))
				if string(m.Body) != probe {
					return m.message
				}
			}
		}
	}
	k, next := open()
	x.awaitOurs(t, topic, k)
	x.sends(t, topic, next)
	_ = k.conn.CloseNow()
	x.publishes(t, topic, theirHeader, "while away")
	_, next = open()
	// What was acknowledged last may come once more: the connection broke.
	within(t, patient, "what was published while the subscriber was away", func() bool { return string(next().Body) == "while away" })
}

// sharedQueue gives each message to one of two members, on either side.
func (x *exchange) sharedQueue(t *testing.T) {
	topic := x.topic + ".queue"
	k := x.sidecar.subscribe(topic, "workers")
	x.subscribes(topic, "workers")
	ours, theirs, sent := map[string]int{}, map[string]int{}, 0
	look := func() {
		for len(k.frames) > 0 {
			ours[string(k.message().Body)]++
		}
		clear(theirs)
		for _, m := range x.all(t, topic) {
			theirs[string(m.Body)]++
		}
	}
	within(t, patient, "both to get some", func() bool {
		x.post(topic, fmt.Sprint(sent)).is(t, 200, "")
		sent++
		look()
		return len(ours) > 0 && len(theirs) > 0
	})
	within(t, patient, "all to arrive", func() bool { look(); return len(ours)+len(theirs) >= sent })
	for i := range sent {
		if n := ours[fmt.Sprint(i)] + theirs[fmt.Sprint(i)]; n != 1 {
			t.Errorf("message %d of %d came %d times", i, sent, n)
		}
	}
}

// twoQueues gives each message to the queues of both sides.
func (x *exchange) twoQueues(t *testing.T) {
	topic := x.topic + ".queue"
	k := x.sidecar.subscribe(topic, "workers")
	x.subscribes(topic, "workers")
	x.awaitTheirs(t, topic)
	x.post(topic, "for both").is(t, 200, "")
	if m := x.message(k); string(m.Body) != "for both" {
		t.Errorf("ours got %q", m.Body)
	}
	if m := x.received(t, topic, 1)[0]; string(m.Body) != "for both" {
		t.Errorf("theirs got %q", m.Body)
	}
}

// handler has the server decode what curl would have posted.
func (x *exchange) handler(t *testing.T, topic, contentTypes, body string) {
	within(t, patient, "the handler to be called", func() bool {
		x.post(topic, body, contentType, contentTypes).is(t, 200, "")
		return len(x.all(t, topic)) > 0
	})
	for _, m := range x.all(t, topic) {
		if m.Value != "John" {
			t.Errorf("the handler was given %q", m.Value)
		}
	}
}

// event has go-micro's client publish, and returns the body that comes.
func (x *exchange) event(t *testing.T, topic, kind string) []byte {
	t.Helper()
	k := x.sidecar.subscribe(topic, "")
	x.awaitOurs(t, topic, k)
	if said := x.peer.tell("event " + topic + " " + kind + " John"); said != noError {
		t.Fatalf("client.Publish: %s", said)
	}
	m := x.message(k)
	if m.Header[contentType] != kind {
		t.Errorf("the header is %q", m.Header)
	}
	return m.Body
}

// post is curl's.
func (x *exchange) post(topic, body string, header ...string) answer {
	return x.sidecar.ask("POST", "/broker?topic="+url.QueryEscape(topic), body, header...)
}

// noError is how go-micro's services say nil, in JSON.
const noError = `"\u003cnil\u003e"`

func (x *exchange) subscribes(topic, queue string) {
	x.peer.t.Helper()
	if said := x.peer.tell("subscribe " + topic + " " + queue); said != noError {
		x.peer.t.Fatalf("subscribe: %s", said)
	}
}

func (x *exchange) publishes(t *testing.T, topic string, header map[string]string, body string) {
	t.Helper()
	text, err := json.Marshal(message{header, []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	if said := x.peer.tell("publish " + topic + " " + string(text)); said != noError {
		t.Fatalf("publish: %s", said)
	}
}

// probe is a message that tells that there is a way.
const probe = "are you there?"

// awaitTheirs returns when go-micro's subscription works: not all of its
// brokers say so.
func (x *exchange) awaitTheirs(t *testing.T, topic string) {
	t.Helper()
	within(t, patient, "go-micro to hear", func() bool {
		x.post(topic, probe).is(t, 200, "")
		return len(x.everything(t, topic)) > 0
	})
}

// awaitOurs returns when go-micro reaches our subscriber: it may have looked for
// it before, and remembers that.
func (x *exchange) awaitOurs(t *testing.T, topic string, k *socket) {
	t.Helper()
	text, err := json.Marshal(message{nil, []byte(probe)})
	if err != nil {
		t.Fatal(err)
	}
	within(t, patient, "go-micro to be heard", func() bool {
		x.peer.tell("publish " + topic + " " + string(text)) // or it says that it finds nobody
		select {
		case <-k.frames:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
}

// message is the next one that is not a probe.
func (x *exchange) message(k *socket) message {
	k.t.Helper()
	for {
		if m := k.message(); string(m.Body) != probe {
			return m
		}
	}
}

// theirMessage is one that the service has.
type theirMessage struct {
	message
	Topic, Value string
}

// everything is what the service has of a topic, all what isn't a probe.
func (x *exchange) everything(t *testing.T, topic string) []theirMessage {
	t.Helper()
	var all []theirMessage
	if text := x.peer.tell("received"); json.Unmarshal([]byte(text), &all) != nil {
		t.Fatalf("received: %s", text)
	}
	return slices.DeleteFunc(all, func(m theirMessage) bool { return m.Topic != topic })
}

func (x *exchange) all(t *testing.T, topic string) []theirMessage {
	t.Helper()
	return slices.DeleteFunc(x.everything(t, topic), func(m theirMessage) bool { return string(m.Body) == probe })
}

// received awaits n messages.
func (x *exchange) received(t *testing.T, topic string, n int) (all []theirMessage) {
	t.Helper()
	within(t, patient, fmt.Sprintf("%d messages to arrive", n), func() bool { all = x.all(t, topic); return len(all) >= n })
	if len(all) != n {
		t.Fatalf("%d messages came, want %d", len(all), n)
	}
	return all
}
