package nats

import (
	"net/url"
	"strings"

	"github.com/micro/sidecar/internal/engine/token"
)

const (
	// emptyPart stands for an empty part of a topic ("a..b"); e is no
	// hexadecimal digit of token's, so no escape looks like it.
	emptyPart = "=e"
	// maxParts and maxSubject bound what a topic becomes part by part; a longer
	// one is a single token, a digest.
	maxParts   = 32
	maxSubject = 512
)

// subject is where a topic's messages travel: a token a part, with the prefix
// in front. Topics that differ have subjects that differ.
func (b *Broker) subject(topic string) string {
	s, _ := b.encode(topic, false)
	return s
}

// filter is the subject that a subscription listens to: topic may be a
// pattern. One that is too long for that is a topic.
func (b *Broker) filter(topic string) string {
	s, _ := b.encode(topic, true)
	return s
}

// exact tells that a subscription to topic gets messages of that topic alone.
func (b *Broker) exact(topic string) bool { return b.filter(topic) == b.subject(topic) }

// encode reports with whole that the subject tells the topic.
func (b *Broker) encode(topic string, pattern bool) (subject string, whole bool) {
	if b.o.GoMicro {
		if subject, ok := b.plain(topic, pattern); ok {
			return subject, true
		}
	}
	parts := strings.Split(topic, ".")
	if len(parts) <= maxParts {
		var s strings.Builder
		s.WriteString(b.o.Prefix)
		for i, part := range parts {
			s.WriteByte('.')
			switch {
			case part == "":
				s.WriteString(emptyPart)
			case pattern && (part == "*" || part == ">" && i == len(parts)-1):
				s.WriteString(part)
			default:
				encoded := token.Encode(part)
				if decoded, ok := token.Decode(encoded); !ok || decoded != part {
					return b.digest(topic), false
				}
				s.WriteString(encoded)
			}
		}
		if s.Len() <= maxSubject {
			return s.String(), true
		}
	}
	return b.digest(topic), false
}

// digest is the subject of a topic that has no other: one token.
func (b *Broker) digest(topic string) string {
	return b.o.Prefix + "." + token.Digest(topic)
}

// topic is the inverse of subject; false for digests and foreign subjects.
func (b *Broker) topic(subject string) (string, bool) {
	rest, ok := strings.CutPrefix(subject, b.o.Prefix+".")
	if !ok {
		return subject, b.o.GoMicro
	}
	parts := strings.Split(rest, ".")
	for i, part := range parts {
		if part == emptyPart {
			parts[i] = ""
			continue
		}
		if parts[i], ok = token.Decode(part); !ok {
			return "", false
		}
	}
	return strings.Join(parts, "."), true
}

// topicField carries the topic of a message whose subject does not tell it, as
// a query string's value.
const topicField = "Micro-Topic"

// topicOf is the topic of a message that arrived for a subscription to topic,
// which may be a pattern.
func (b *Broker) topicOf(subscribed string, exact bool, subject string, h map[string][]string) string {
	if exact {
		return subscribed
	}
	if topic, ok := b.topic(subject); ok {
		return topic
	}
	if field := h[topicField]; len(field) > 0 {
		if topic, err := url.QueryUnescape(field[0]); err == nil {
			return topic
		}
	}
	return subscribed
}

// Match implements [broker.Wildcards].
func (b *Broker) Match(pattern, topic string) bool {
	return pattern == topic || matches(b.filter(pattern), b.subject(topic))
}

// matches tells whether a subject with wildcards covers one without.
func matches(filter, subject string) bool {
	want, have := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, part := range want {
		switch {
		case i >= len(have):
			return false
		case part == ">":
			return true
		case part != "*" && part != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}
