package nats

import (
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/recent"
)

// publishedIDs remembers the IDs that this broker has published. The stream knows
// them, too, but live subscribers get a message before the stream has looked
// at it.
type publishedIDs struct {
	mu  sync.Mutex
	ids recent.Map[publishedID, time.Time]
}

type publishedID struct{ topic, id string }

func (p *publishedIDs) has(topic, id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.ids.Get(publishedID{topic, id})
	return ok && time.Since(at) < broker.OnceWithin
}

func (p *publishedIDs) add(topic, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids.Put(publishedID{topic, id}, time.Now())
}
