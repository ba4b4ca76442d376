package cli

import (
	"time"

	"github.com/micro/sidecar/internal/accesslog"
)

const groupObserve = "Looking on"

// observeSettings are about what the sidecar tells of itself.
func observeSettings() []*setting {
	return []*setting{
		{
			name: "admin_address", group: groupObserve, value: "HOST:PORT",
			help: "serve /livez, /readyz, /metrics and /debug/pprof here, to whoever asks",
			set:  one(parseListenTCP, func(c *Config) *string { return &c.Sidecar.Observe.AdminAddress }),
		},
		{
			name: "access_log", group: groupObserve, value: "FILE", note: "none",
			help: "write a line for each answer to this file; - is standard output",
			set:  one(parseName, func(c *Config) *string { return &c.Sidecar.Observe.AccessLog.Path }),
		},
		{
			name: "access_log_format", group: groupObserve, value: "json|combined", def: accesslog.JSON,
			choices: []string{accesslog.JSON, accesslog.Combined}, help: "form of these lines",
			set: one(parseChoice([]string{accesslog.JSON, accesslog.Combined}, nil), func(c *Config) *string { return &c.Sidecar.Observe.AccessLog.Format }),
		},
		{
			name: "access_log_slow", group: groupObserve, value: "DURATION", def: "0s",
			help: "only answers that took at least this long, or failed",
			set:  one(parseDuration, func(c *Config) *time.Duration { return &c.Sidecar.Observe.AccessLog.Slow }),
		},
	}
}
