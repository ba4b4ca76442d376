package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/internal/sidecar"
)

// messagingSettings are those of durable messaging.
func messagingSettings() []*setting {
	return []*setting{
		{
			name: "subscribe", reload: true, group: groupApp, value: "topic=T,queue=Q,path=/P,…",
			help: "post the messages of a durable queue to the application; or url=URL; further: concurrency, ordered, ack_wait, max_deliver, dead_letter; may be given again",
			list: true, noComma: true,
			set: many(parseSubscriptions, func(c *Config) *[]sidecar.Subscription { return &c.Sidecar.Subscriptions }),
		},
		{
			name: "broker_max_bytes", group: groupEngines, value: "SIZE", note: "what the disk holds",
			help: "most that is stored of messages; then publishing fails with 507 (embedded, nats)",
			set:  one(parseDiskSize, func(c *Config) *int64 { return &c.Sidecar.Engines.MaxBytes }),
		},
		{
			name: "engine_sync", group: groupEngines, value: "DURATION|always", def: "5s",
			help: "how often the embedded engine syncs to disk: what a power cut may cost; always is slower",
			set:  one(parseSync, func(c *Config) *time.Duration { return &c.Sidecar.Engines.Sync }),
		},
	}
}

// parseSync reads how often the engine syncs; always is -1.
func parseSync(s string) (time.Duration, error) {
	if s == "always" {
		return -1, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Millisecond || d > time.Hour {
		return 0, expected(s, "a duration from 1ms to 1h, or always")
	}
	return d, nil
}

const (
	defaultConcurrency = 4
	defaultAckWait     = 30 * time.Second
	defaultMaxDeliver  = 5
)

// parseSubscriptions reads what --subscribe says, once for each subscription.
// Two may not share a queue: each would get half of its messages.
func parseSubscriptions(items []string) ([]sidecar.Subscription, error) {
	var all []sidecar.Subscription
	seen := map[[2]string]bool{}
	for _, item := range items {
		s, err := parseSubscription(item)
		if err != nil {
			return nil, err
		}
		name := [2]string{s.Topic, s.Queue}
		if seen[name] {
			return nil, fmt.Errorf("queue %q of topic %q is subscribed to twice", s.Queue, s.Topic)
		}
		seen[name] = true
		all = append(all, s)
	}
	return all, nil
}

// subscriptionFields are the keys of --subscribe.
var subscriptionFields = map[string]func(s *sidecar.Subscription, value string) error{
	"topic": func(s *sidecar.Subscription, v string) error { s.Topic = v; return nil },
	"queue": func(s *sidecar.Subscription, v string) error { s.Queue = v; return nil },
	"path": func(s *sidecar.Subscription, v string) error {
		if u, err := url.ParseRequestURI(v); err != nil || !strings.HasPrefix(v, "/") || u.Host != "" {
			return expected(v, "a path that begins with /")
		}
		s.Path = v
		return nil
	},
	"url": func(s *sidecar.Subscription, v string) error {
		if _, err := parseProbeURL(v); err != nil {
			return expected(v, "an http or https URL, such as http://127.0.0.1:9000/events or http://unix:/run/app.sock:/events")
		}
		s.URL = v
		if socket, target, ok := health.Unix(v); ok {
			s.Socket, s.URL = socket, target
		}
		return nil
	},
	"concurrency": func(s *sidecar.Subscription, v string) (err error) {
		s.Concurrency, err = parseInt(1, 1000)(v)
		return err
	},
	"ordered": func(s *sidecar.Subscription, v string) (err error) {
		s.Ordered, err = parseBool(v)
		return err
	},
	"ack_wait": func(s *sidecar.Subscription, v string) (err error) {
		if s.AckWait, err = time.ParseDuration(v); err != nil || s.AckWait < time.Second || s.AckWait > 24*time.Hour {
			return expected(v, "a duration from 1s to 24h")
		}
		return nil
	},
	"max_deliver": func(s *sidecar.Subscription, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 1_000_000 {
			return expected(v, "a number from 1 to 1000000, or 0 for no limit")
		}
		s.MaxDeliver = n
		return nil
	},
	"dead_letter": func(s *sidecar.Subscription, v string) error { s.DeadLetter = v; return nil },
}

// parseSubscription reads topic=orders,queue=billing,path=/events,…; a comma or
// backslash within a value has a backslash in front.
func parseSubscription(text string) (sidecar.Subscription, error) {
	s := sidecar.Subscription{Push: messaging.Push{
		Concurrency: defaultConcurrency, AckWait: defaultAckWait, MaxDeliver: defaultMaxDeliver,
	}}
	given := map[string]bool{}
	for _, part := range splitEscaped(text) {
		key, value, ok := strings.Cut(part, "=")
		key = strings.TrimSpace(key)
		set := subscriptionFields[key]
		switch {
		case !ok || value == "":
			return s, fmt.Errorf("%.64q: expected KEY=VALUE, as in topic=orders,queue=billing,path=/events", part)
		case set == nil:
			return s, fmt.Errorf("unknown key %.64q; known are topic, queue, path, url, concurrency, ordered, ack_wait, max_deliver, dead_letter", key)
		case given[key]:
			return s, fmt.Errorf("%s is given twice", key)
		}
		given[key] = true
		if err := set(&s, value); err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
	}
	switch {
	case s.Topic == "" || s.Queue == "":
		return s, fmt.Errorf("%.64q: expected topic=TOPIC and queue=QUEUE", text)
	case given["path"] == given["url"]:
		return s, fmt.Errorf("%.64q: expected path=/PATH of the application, or url=URL", text)
	case s.DeadLetter == s.Topic:
		return s, fmt.Errorf("dead_letter: %q is the topic itself", s.Topic)
	}
	return s, nil
}

// splitEscaped splits at commas that have no backslash in front.
func splitEscaped(text string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == ',' || text[i+1] == '\\'):
			i++
			part.WriteByte(text[i])
		case c == ',':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}

// joinEscaped is the inverse of splitEscaped.
func joinEscaped(parts []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	for i, part := range parts {
		parts[i] = escape.Replace(part)
	}
	return strings.Join(parts, ",")
}

// finishSubscriptions says which application a path belongs to.
func (c *Config) finishSubscriptions(given map[string]origin) error {
	for i := range c.Sidecar.Subscriptions {
		s := &c.Sidecar.Subscriptions[i]
		if s.Path == "" {
			continue
		}
		if c.serverAddress.host == "" {
			return fmt.Errorf("%s: path=%s needs --server_name and --server_address, the application; or give url=", given["subscribe"], s.Path)
		}
	}
	return nil
}
