package certs

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger makes the logger that certmagic wants of ours.
func newLogger(log *slog.Logger) *zap.Logger { return zap.New(&core{log: log}) }

// core passes on what certmagic logs. What it tells at length about things that
// go well is for those who look for faults.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func level(l zapcore.Level) slog.Level {
	if l >= zapcore.WarnLevel {
		return slog.LevelWarn // it is tried again; what comes of it is told by us
	}
	return slog.LevelDebug
}

// Enabled implements [zapcore.Core].
func (c *core) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), level(l)) }

// With implements [zapcore.Core].
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{c.log, slices.Concat(c.fields, fields)}
}

// Check implements [zapcore.Core].
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements [zapcore.Core].
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	all := slices.Concat(c.fields, fields)
	for _, f := range all {
		f.AddTo(values)
	}
	var args []any
	for _, f := range all {
		if v, ok := values.Fields[f.Key]; ok {
			args = append(args, f.Key, v)
		}
	}
	c.log.Log(context.Background(), level(e.Level), "ACME: "+e.Message, args...)
	return nil
}

// Sync implements [zapcore.Core].
func (c *core) Sync() error { return nil }
