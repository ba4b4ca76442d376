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
	started atomic.Bool // the store is open

	mu    sync.Mutex
	fatal error // the first: why the server cannot start
}

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
		level = slog.LevelInfo
	}
	l.log.Log(context.Background(), level, "embedded engine: "+fmt.Sprintf(format, args...))
}

// Errorf implements the server's Logger.
func (l *logger) Errorf(format string, args ...any) {
	l.log.Error("embedded engine: " + fmt.Sprintf(format, args...))
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
