// Package complain logs what is wrong with the data of others, now and then:
// whoever writes nonsense may write much of it. It owns the pace, not the
// words.
package complain

import (
	"log/slog"
	"sync"
	"time"
)

// interval is the least time between two lines.
const interval = time.Minute

// Log is a logger of complaints. It is safe for concurrent use.
type Log struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time
	more int
}

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log { return &Log{log: log} }

// Warn logs a line, at most one a minute; the next one says in its attribute
// "more" how many there would have been.
func (l *Log) Warn(message string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && time.Since(l.last) < interval {
		l.more++
		return
	}
	l.log.Warn(message, append(args, "more", l.more)...)
	l.last, l.more = time.Now(), 0
}
