package rabbitmq

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
)

const (
	prefix      = "micro:"
	topicHeader = prefix + "topic" // the topic of a message whose key does not tell
	onceHeader  = prefix + "once"  // the ID that it is published with once

	maxName   = 255       // bytes of a key, a name of a queue or of a header
	maxHeader = 100 << 10 // bytes of a header, all of which is in one frame, of at most 128 KiB
)

// encode makes a message of go-micro's form, which lasts on the server's disk
// where a queue is durable.
func encode(topic string, m broker.Message) (key string, p amqp.Publishing, err error) {
	if len(m.Body) > MaxMessage {
		return "", p, fmt.Errorf("%w: a body of %d bytes, at most %d", broker.ErrTooLarge, len(m.Body), MaxMessage)
	}
	header := make(amqp.Table, len(m.Header)+1)
	key = routingKey(topic)
	size := len(topic)
	if readKey(key) != topic {
		header[topicHeader] = topic
	}
	for k, v := range m.Header {
		if reserved(k) {
			k = prefix + k
		}
		if len(k) > maxName {
			return "", p, fmt.Errorf("%w: a header's name of %d bytes, at most %d", broker.ErrTooLarge, len(k), maxName)
		}
		size += len(k) + len(v) + 6
		header[k] = v
	}
	if size > maxHeader {
		return "", p, fmt.Errorf("%w: a header of %d bytes, at most %d", broker.ErrTooLarge, size, maxHeader)
	}
	return key, amqp.Publishing{
		Headers: header, Body: m.Body, DeliveryMode: amqp.Persistent, MessageId: rand.Text(), Timestamp: time.Now(),
	}, nil
}

// reserved names mean something to RabbitMQ, or to us.
func reserved(name string) bool {
	switch name {
	case "CC", "BCC", "x-death", "x-delivery-count":
		return true
	}
	return strings.HasPrefix(name, prefix)
}

// decode reads a message, from go-micro or anybody.
func decode(d amqp.Delivery) broker.Delivery {
	out := broker.Delivery{Topic: readKey(d.RoutingKey), Message: broker.Message{Header: make(map[string]string, len(d.Headers)), Body: d.Body}}
	for k, v := range d.Headers {
		switch rest, ours := strings.CutPrefix(k, prefix); {
		case ours && reserved(rest):
			out.Header[rest] = text(v)
		case k == topicHeader:
			if topic := text(v); topic != "" {
				out.Topic = topic
			}
		case !reserved(k):
			out.Header[k] = text(v)
		}
	}
	return out
}

// text is a header's value as go-micro reads it, but bytes are text.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

// routingKey is the key that a topic is published with: itself, but for the
// wildcard # and what is too long.
func routingKey(topic string) string { return hashed(mapWords(topic, escapeWord)) }

func hashed(key string) string {
	if len(key) <= maxName {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return prefix + "long:" + hex.EncodeToString(sum[:])
}

// readKey is the topic of a key.
func readKey(key string) string {
	return mapWords(key, func(word string) string {
		if isEscaped(word) {
			return strings.Replace(strings.Replace(word, "%23", "#", 1), "%25", "%", 1)
		}
		return word
	})
}

// escapeWord writes the word # as %23, and therefore %23 as %2523, and so on.
func escapeWord(word string) string {
	switch {
	case word == "#":
		return "%23"
	case isEscaped(word):
		return "%25" + word[1:]
	}
	return word
}

// isEscaped tells words of the form %23, %2523, %252523...
func isEscaped(word string) bool {
	rest, ok := strings.CutPrefix(word, "%")
	if !ok {
		return false
	}
	for strings.HasPrefix(rest, "25") {
		rest = rest[2:]
	}
	return rest == "23"
}

func mapWords(s string, f func(string) string) string {
	if !strings.ContainsAny(s, "#%") {
		return s
	}
	words := strings.Split(s, ".")
	for i, w := range words {
		words[i] = f(w)
	}
	return strings.Join(words, ".")
}

// bindingKey is what a queue is bound with to get what a pattern matches.
func bindingKey(pattern string) string {
	key := mapWords(pattern, escapeWord)
	if key == ">" {
		return "#"
	}
	if rest, ok := strings.CutSuffix(key, ".>"); ok {
		key = rest + ".*.#"
	}
	return hashed(key)
}

// Match implements [broker.Wildcards]. A topic whose key is longer than 255
// bytes matches itself, and the pattern > alone.
func (b *Broker) Match(pattern, topic string) bool {
	if pattern == topic || pattern == ">" {
		return true
	}
	if len(mapWords(topic, escapeWord)) > maxName || len(mapWords(pattern, escapeWord)) > maxName-len("*.#") {
		return false
	}
	want, have := strings.Split(pattern, "."), strings.Split(topic, ".")
	for i, part := range want {
		switch {
		case i == len(want)-1 && part == ">":
			return len(have) > i
		case i >= len(have) || part != "*" && part != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

// queueName names a queue: the words of a kind, and names of any bytes.
func queueName(kind string, names ...string) string {
	name := kind
	for _, n := range names {
		name += ":" + escapeName(n)
	}
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return kind + ":~" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
}

// escapeName keeps what would divide names, and what RabbitMQ leaves out of
// them, away.
func escapeName(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == ':' || c == '%' || c == '~' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}
