package messaging

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/suggest"
)

const (
	defaultPrefetch = 16
	maxPrefetch     = 1000
	// maxDelay bounds Micro-Delay, and Delay in a frame.
	maxDelay = 366 * 24 * time.Hour
)

// query is what a publisher or subscriber says in the request target.
type query struct {
	topic, queue string
	ack          bool
	prefetch     int
	ackWait      time.Duration // 0: the queue's
	expires      time.Duration // 0: the queue's
	batch        string        // "" or ndjson
}

// values is a query each of whose names was given once.
type values map[string]string

// parseValues reads the query string of a request for /broker.
func parseValues(raw string) (values, error) {
	all, err := url.ParseQuery(raw)
	if err != nil {
		return nil, httpmsg.Errorf(http.StatusBadRequest, "malformed query: %v", err)
	}
	v := make(values, len(all))
	for name, given := range all {
		if len(given) > 1 {
			return nil, httpmsg.Errorf(http.StatusBadRequest, "%s is given %d times, expected once", name, len(given))
		}
		if !utf8.ValidString(given[0]) {
			return nil, httpmsg.Errorf(http.StatusBadRequest, "%s %q is not valid UTF-8", name, given[0])
		}
		if err := known(name); err != nil {
			return nil, err
		}
		v[name] = given[0]
	}
	return v, nil
}

// parameters are the names that mean something in a request for /broker.
var parameters = []string{"topic", "queue", "ack", "prefetch", "ack_wait", "expires", "batch", "queues", "dead", "id", "after", "limit", "all", "purge"}

// known refuses a name that looks like a mistyped parameter: a queue must not be
// live because of akc=true. Others mean nothing, as ever, and are passed over.
func known(name string) error {
	if len(name) < 3 || slices.Contains(parameters, name) {
		return nil
	}
	if nearest := suggest.Nearest(name, parameters); nearest != "" {
		return httpmsg.Errorf(http.StatusBadRequest, "unknown parameter %q, did you mean %s?", name, nearest)
	}
	return nil
}

// has tells that the name was given, with or without a value.
func (v values) has(name string) bool {
	_, ok := v[name]
	return ok
}

// flag reads a parameter that is true or false, and false when it is not there.
func (v values) flag(name string) (bool, error) {
	switch v[name] {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, httpmsg.Errorf(http.StatusBadRequest, "%s=%s: expected true or false", name, v[name])
}

func (v values) topic() (string, error) {
	if v["topic"] == "" {
		return "", httpmsg.Errorf(http.StatusBadRequest, "no topic: expected /broker?topic=NAME")
	}
	return v["topic"], nil
}

func (v values) query() (q query, err error) {
	if q.topic, err = v.topic(); err != nil {
		return q, err
	}
	q.queue, q.batch = v["queue"], v["batch"]
	if q.ack, err = v.flag("ack"); err != nil {
		return q, err
	}
	if !q.ack {
		for _, name := range []string{"prefetch", "ack_wait", "expires"} {
			if v.has(name) {
				return q, httpmsg.Errorf(http.StatusBadRequest, "%s goes with ack=true", name)
			}
		}
		return q, nil
	}
	if q.queue == "" {
		return q, httpmsg.Errorf(http.StatusBadRequest, "ack=true needs queue=NAME: messages are kept for a queue")
	}
	q.prefetch = defaultPrefetch
	if v.has("prefetch") {
		if q.prefetch, err = strconv.Atoi(v["prefetch"]); err != nil || q.prefetch < 1 || q.prefetch > maxPrefetch {
			return q, httpmsg.Errorf(http.StatusBadRequest, "prefetch=%s: expected a number from 1 to %d", v["prefetch"], maxPrefetch)
		}
	}
	for _, d := range []struct {
		name string
		set  *time.Duration
	}{{"ack_wait", &q.ackWait}, {"expires", &q.expires}} {
		if !v.has(d.name) {
			continue
		}
		if *d.set, err = time.ParseDuration(v[d.name]); err != nil || *d.set < time.Second || *d.set > maxDelay {
			return q, httpmsg.Errorf(http.StatusBadRequest, "%s=%s: expected a duration from 1s to %s", d.name, v[d.name], maxDelay)
		}
	}
	return q, nil
}
