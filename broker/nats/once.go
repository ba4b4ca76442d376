package nats

import (
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
)

// recent remembers the IDs that this broker has published. The stream knows
// them, too, but live subscribers get a message before the stream has looked
// at it. It forgets early rather than grow.
type recent struct {
	mu       sync.Mutex
	now, old map[string]time.Time // two generations of a window each
	turned   time.Time
}

// maxRecent bounds the IDs of a generation.
const maxRecent = 1 << 15

func (r *recent) has(topic, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := topic + "\x00" + id
	for _, generation := range []map[string]time.Time{r.now, r.old} {
		if at, ok := generation[key]; ok && time.Since(at) < broker.OnceWithin {
			return true
		}
	}
	return false
}

func (r *recent) add(topic, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.turned) > broker.OnceWithin || len(r.now) >= maxRecent {
		r.old, r.now, r.turned = r.now, make(map[string]time.Time), time.Now()
	}
	r.now[topic+"\x00"+id] = time.Now()
}
