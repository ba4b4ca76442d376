package cli

import "time"

// resilienceSettings are those of calls that fail, or of which there are too
// many; --client_request_timeout is a common setting.
func resilienceSettings() []*setting {
	return []*setting{
		{
			name: "client_connect_timeout", group: groupLimits, value: "DURATION", def: "2s", help: "time a connection to a node may take to be made",
			set: one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.ConnectTimeout }),
		},
		{
			name: "client_try_timeout", reload: true, group: groupLimits, value: "DURATION", note: "half of the time left, when another node may follow",
			help: "time each try of a call may take",
			set:  one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.TryTimeout }),
		},
		{
			name: "client_retries", reload: true, group: groupLimits, value: "N", def: "1", help: "how often a call that failed is made again, where that is safe; 0: never",
			set: one(parseInt(0, 100), func(c *Config) *int { return &c.Sidecar.Retries }),
		},
		{
			name: "max_concurrency", group: groupLimits, value: "N", note: "no limit", help: "requests that may wait for an answer at a time",
			set: one(parseInt(1, 1_000_000), func(c *Config) *int { return &c.Sidecar.MaxConcurrency }),
		},
		{
			name: "max_connections", group: groupLimits, value: "N", note: "the system's limit", help: "connections of clients at a time; those beyond wait; 0: the system's limit",
			set: one(parseInt(0, 10_000_000), func(c *Config) *int { return &c.Sidecar.MaxConnections }),
		},
	}
}
