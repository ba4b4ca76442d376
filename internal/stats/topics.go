package stats

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxTopics is how many topics are told apart. Topics are named by clients.
const maxTopics = 200

// OtherTopics is the name of all topics beyond those that are told apart.
const OtherTopics = "(other)"

// Topics counts messages by topic. The zero value has counted none. Its methods
// are safe for concurrent use; a topic that is known is counted without a lock.
type Topics struct {
	topics sync.Map // name → *topic
	mu     sync.Mutex
	known  int
}

type topic struct {
	published, delivered atomic.Uint64

	mu   sync.Mutex
	past []topicLook // one a look, oldest first
}

type topicLook struct {
	at                   time.Time
	published, delivered uint64
}

// Topic is what was counted of a topic.
type Topic struct {
	Name                         string
	Published, Delivered         uint64
	PublishedRate, DeliveredRate float64 // messages a second, over the last 10 s
}

// Published notes that a message was published.
func (t *Topics) Published(name string) { t.topic(name).published.Add(1) }

// Delivered notes that n messages were delivered.
func (t *Topics) Delivered(name string, n int) { t.topic(name).delivered.Add(uint64(n)) }

func (t *Topics) topic(name string) *topic {
	if at, ok := t.topics.Load(name); ok {
		return at.(*topic)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.topics.Load(name); ok {
		return at.(*topic)
	}
	if t.known >= maxTopics {
		at, _ := t.topics.LoadOrStore(OtherTopics, &topic{})
		return at.(*topic)
	}
	t.known++
	at, _ := t.topics.LoadOrStore(name, &topic{})
	return at.(*topic)
}

// Look notes how far the counters are, for the rates.
func (t *Topics) Look(now time.Time) {
	t.topics.Range(func(_, value any) bool {
		at := value.(*topic)
		at.mu.Lock()
		defer at.mu.Unlock()
		at.past = append(at.past, topicLook{now, at.published.Load(), at.delivered.Load()})
		if extra := len(at.past) - rateSteps - 1; extra > 0 {
			at.past = slices.Delete(at.past, 0, extra)
		}
		return true
	})
}

// All returns the topics by name.
func (t *Topics) All() []Topic {
	var all []Topic
	t.topics.Range(func(name, value any) bool {
		all = append(all, value.(*topic).read(name.(string)))
		return true
	})
	slices.SortFunc(all, func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (t *topic) read(name string) Topic {
	out := Topic{Name: name, Published: t.published.Load(), Delivered: t.delivered.Load()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.past); n > 1 {
		first, last := t.past[0], t.past[n-1]
		seconds := last.at.Sub(first.at).Seconds()
		if seconds > 0 {
			out.PublishedRate = float64(last.published-first.published) / seconds
			out.DeliveredRate = float64(last.delivered-first.delivered) / seconds
		}
	}
	return out
}
