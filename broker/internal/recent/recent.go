// Package recent remembers what was published lately, for drivers of engines
// that do not tell repetitions by themselves, or not in time. It knows nothing
// of messages.
package recent

import (
	"time"

	"github.com/micro/sidecar/broker"
)

// most bounds the entries of a generation.
const most = 1 << 15

// Map has what was put into it within [broker.OnceWithin], and maybe what is up
// to twice as old: two generations. It forgets early rather than grow. The zero
// value is empty. It is not safe for concurrent use.
type Map[K comparable, V any] struct {
	now, old map[K]V
	turned   time.Time
}

// Get returns the value that was put last.
func (m *Map[K, V]) Get(key K) (V, bool) {
	v, ok := m.now[key]
	if !ok {
		v, ok = m.old[key]
	}
	return v, ok
}

// Put puts a value in the place of one before it.
func (m *Map[K, V]) Put(key K, v V) {
	if time.Since(m.turned) > broker.OnceWithin || len(m.now) >= most {
		m.old, m.now, m.turned = m.now, map[K]V{}, time.Now()
	}
	m.now[key] = v
}
