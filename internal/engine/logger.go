package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// logger carries the server's complaints to slog. What it tells about its
// ordinary life is dropped.
type logger struct {
	log     *slog.Logger
	started atomic.Bool   // the store is open
	broken  chan struct{} // closed when the disk could not be written to

	mu    sync.Mutex
	fatal error // the first: why the server cannot start
}

func newLogger(log *slog.Logger) *logger { return &logger{log: log, broken: make(chan struct{})} }

func (l *logger) Noticef(string, ...any) {}
func (l *logger) Debugf(string, ...any)  {}
func (l *logger) Tracef(string, ...any)  {}

// Warnf implements the server's Logger.
func (l *logger) Warnf(format string, args ...any) {
	// MaxPayload is our choice and nothing a user can act on.
	if strings.HasPrefix(format, "Maximum payloads over") {
		return
	}
	level := slog.LevelWarn
	if !l.started.Load() {
		// A killed host leaves indexes behind that are rebuilt: part of a take-over.
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "embedded engine: "+fmt.Sprintf(format, args...))
}

// Errorf implements the server's Logger. This is the only place where the
// server tells that it cannot write; all that follows from it is one complaint
// after the other.
func (l *logger) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	level := slog.LevelError
	if l.isBroken() {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, "embedded engine: "+text)
	for _, sign := range []string{"ritical write error", "no space left", "will be DISABLED", "disabling JetStream"} {
		if strings.Contains(text, sign) {
			l.breaks()
			return
		}
	}
}

func (l *logger) isBroken() bool {
	select {
	case <-l.broken:
		return true
	default:
		return false
	}
}

func (l *logger) breaks() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isBroken() {
		close(l.broken)
	}
}

// Fatalf implements the server's Logger. It does not end the process: the
// caller of the start learns of it from err.
func (l *logger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = errors.New(strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

func (l *logger) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
