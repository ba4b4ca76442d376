package rabbitmq

import (
	"maps"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
)

// Whatever a header holds is read, and what we have written is read as it was.
func FuzzHeader(f *testing.F) {
	f.Add("a.b", "Content-Type", "text/plain", int64(3))
	f.Add("#", "CC", "x", int64(-1))
	f.Add("%2523.#.%", "micro:topic", "\xff", int64(0))
	f.Add(strings.Repeat("long.", 100), "micro:micro:CC", "", int64(1))
	f.Fuzz(func(t *testing.T, topic, name, value string, n int64) {
		foreign := decode(amqp.Delivery{RoutingKey: topic, Headers: amqp.Table{
			name: value, name + "n": n, name + "t": amqp.Table{value: n}, name + "l": []any{value, nil}, name + "b": []byte(value),
		}})
		if foreign.Header == nil {
			t.Fatal("no header")
		}
		m := broker.Message{Header: map[string]string{name: value}, Body: []byte(value)}
		key, p, err := encode(topic, m)
		if err != nil {
			return
		}
		if len(key) > maxName {
			t.Fatalf("a key of %d bytes", len(key))
		}
		d := decode(amqp.Delivery{RoutingKey: key, Headers: p.Headers, Body: p.Body})
		if d.Topic != topic && topic != "" || !maps.Equal(d.Header, m.Header) {
			t.Fatalf("%q %q: read as %q %q", topic, m.Header, d.Topic, d.Header)
		}
	})
}

func TestKeys(t *testing.T) {
	for topic, want := range map[string]string{
		"a.b": "a.b", "#": "%23", "a.#": "a.%23", "%23": "%2523", "%2523.x": "%252523.x", "a#": "a#", "%": "%", "%25": "%25", "100%": "100%",
	} {
		if got := routingKey(topic); got != want || readKey(got) != topic {
			t.Errorf("%q: key %q, want %q; read as %q", topic, got, want, readKey(got))
		}
	}
	for pattern, want := range map[string]string{
		"a.*": "a.*", "a.>": "a.*.#", ">": "#", "a.>.b": "a.>.b", "#": "%23", "a.#.>": "a.%23.*.#",
	} {
		if got := bindingKey(pattern); got != want {
			t.Errorf("pattern %q: %q, want %q", pattern, got, want)
		}
	}
	if queueName("micro", "a:b", "c") == queueName("micro", "a", "b:c") {
		t.Error("two queues share a name")
	}
	if n := len(queueName("micro", strings.Repeat("x", 300), "q")); n > maxName {
		t.Errorf("a name of %d bytes", n)
	}
}
