package cli

import (
	"log/slog"
	"slices"
	"time"

	"github.com/micro/sidecar/internal/balance"
)

// The groups of settings, in the order of the help.
const (
	groupSidecar = "Listening and routing"
	groupApp     = "The application"
	groupHealth  = "Its health check and registration"
	groupLimits  = "Calls and limits"
	groupEngines = "Engines"
	groupCommon  = "Everything else"
	groupCommand = "Flags"
	groupThrough = "Through a sidecar"
	groupOutput  = "Output"
)

// settingsTable is every setting that configures the sidecar or all commands.
// It is the one place that knows names, defaults and texts: flags, environment,
// configuration file and help follow it.
func settingsTable() []*setting {
	return slices.Concat(
		sidecarSettings(),
		tlsSettings(),
		acmeSettings(),
		authSettings(),
		appSettings(),
		healthSettings(),
		limitSettings(),
		resilienceSettings(),
		engineSettings(),
		messagingSettings(),
		observeSettings(),
		commonSettings(),
	)
}

func sidecarSettings() []*setting {
	return []*setting{
		{
			name: "address", aliases: []string{"sidecar_address"}, env: []string{"MICRO_SIDECAR_ADDRESS"},
			group: groupSidecar, value: "ADDRESS,…", note: "127.0.0.1:8081 and [::1]:8081",
			help: "where the sidecar listens: HOST:PORT or unix:/PATH", list: true,
			set: many(parseListens, func(c *Config) *[]string { return &c.Sidecar.Addresses }),
		},
		{
			name: "namespace", reload: true, aliases: []string{"sidecar_namespace"}, env: []string{"MICRO_SIDECAR_NAMESPACE"},
			group: groupSidecar, value: "NAME", def: "go.micro.srv",
			help: "put before the service named by a path",
			set:  one(parseText, func(c *Config) *string { return &c.Sidecar.Namespace }),
		},
		{
			name: "handler", reload: true, aliases: []string{"sidecar_handler"}, env: []string{"MICRO_SIDECAR_HANDLER"},
			group: groupSidecar, value: "rpc|proxy", def: "rpc", choices: []string{"rpc", "proxy"},
			help: "what becomes of requests to other paths (http and web mean proxy)",
			set: one(parseChoice([]string{"rpc", "proxy"}, map[string]string{"http": "proxy", "web": "proxy"}),
				func(c *Config) *string { return &c.Sidecar.Handler }),
		},
		{
			name: "cors", reload: true, aliases: []string{"sidecar_cors"}, env: []string{"MICRO_SIDECAR_CORS"},
			group: groupSidecar, value: "ORIGIN,…", note: "none", help: "web origins that may use the sidecar", list: true,
			set: many(parseOrigins, func(c *Config) *[]string { return &c.Sidecar.CORS }),
		},
		{
			name: "allowed_hosts", reload: true, group: groupSidecar, value: "HOST,…", note: "loopback names",
			help: "further values of Host that a loopback listener takes", list: true,
			set: many(parseHosts, func(c *Config) *[]string { return &c.Sidecar.AllowedHosts }),
		},
		{
			name: "enable_stats", reload: true, group: groupSidecar, help: "serve /stats",
			set: one(parseBool, func(c *Config) *bool { return &c.Sidecar.EnableStats }),
		},
		{
			name: "rpc_any_address", reload: true, group: groupSidecar, help: "let /rpc call any address, also on a listener that is not loopback",
			set: one(parseBool, func(c *Config) *bool { return &c.Sidecar.RPCAnyAddress }),
		},
	}
}

func tlsSettings() []*setting {
	return []*setting{
		{
			name: "enable_tls", group: groupSidecar, help: "speak TLS on all listeners but unix sockets",
			set: one(parseBool, func(c *Config) *bool { return &c.tls.enable }),
		},
		{
			name: "tls_cert_file", group: groupSidecar, value: "FILE", help: "the certificate, followed by those above it, as PEM",
			set: one(parseName, func(c *Config) *string { return &c.tls.cert }),
		},
		{
			name: "tls_key_file", group: groupSidecar, value: "FILE", help: "its private key as PEM",
			set: one(parseName, func(c *Config) *string { return &c.tls.key }),
		},
		{
			name: "tls_client_ca_file", group: groupSidecar, value: "FILE", help: "clients must show a certificate of one of these authorities",
			set: one(parseName, func(c *Config) *string { return &c.tls.clientCA }),
		},
	}
}

func appSettings() []*setting {
	return []*setting{
		{
			name: "server_name", reload: true, env: []string{"MICRO_SIDECAR_SERVER_NAME"},
			group: groupApp, value: "NAME", help: "register the application under this name",
			set: one(parseName, func(c *Config) *string { return &c.Sidecar.App.Name }),
		},
		{
			name: "server_address", reload: true, env: []string{"MICRO_SIDECAR_SERVER_ADDRESS"},
			group: groupApp, value: "HOST:PORT", help: "where the sidecar reaches it; or unix:/PATH",
			set: one(parseNode, func(c *Config) *hostPort { return &c.serverAddress }),
		},
		{
			name: "server_advertise", reload: true, group: groupApp, value: "HOST:PORT", note: "server_address",
			help: "what is registered",
			set:  one(parseNode, func(c *Config) *hostPort { return &c.serverAdvertise }),
		},
		{
			name: "server_version", reload: true, group: groupApp, value: "VERSION", help: "its version",
			set: one(parseText, func(c *Config) *string { return &c.Sidecar.App.Version }),
		},
		{
			name: "server_id", reload: true, group: groupApp, value: "ID", note: "made from the name", help: "its node id",
			set: one(parseName, func(c *Config) *string { return &c.Sidecar.App.ID }),
		},
		{
			name: "server_metadata", reload: true, group: groupApp, value: "KEY=VALUE,…", help: "its metadata", list: true,
			set: many(parseMetadata, func(c *Config) *map[string]string { return &c.Sidecar.App.Metadata }),
		},
	}
}

func healthSettings() []*setting {
	return []*setting{
		{
			name: "healthcheck_url", reload: true, env: []string{"MICRO_SIDECAR_HEALTHCHECK_URL"},
			group: groupHealth, value: "URL", help: "answers 200 while the application is well; or tcp://HOST:PORT, http://unix:/PATH:/URL",
			set: one(parseProbe, func(c *Config) *string { return &c.Sidecar.Healthcheck.URL }),
		},
		{
			name: "healthcheck_interval", reload: true, group: groupHealth, value: "DURATION", def: "5s", help: "time between probes",
			set: one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.Healthcheck.Interval }),
		},
		{
			name: "healthcheck_timeout", reload: true, group: groupHealth, value: "DURATION", def: "2s", help: "time a probe may take",
			set: one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.Healthcheck.Timeout }),
		},
		{
			name: "healthcheck_fall", reload: true, group: groupHealth, value: "N", def: "1", help: "failures in a row that take it out",
			set: one(parseInt(1, 1000), func(c *Config) *int { return &c.Sidecar.Healthcheck.Fall }),
		},
		{
			name: "healthcheck_rise", reload: true, group: groupHealth, value: "N", def: "1", help: "successes in a row that put it back",
			set: one(parseInt(1, 1000), func(c *Config) *int { return &c.Sidecar.Healthcheck.Rise }),
		},
		{
			name: "healthcheck_startup_grace", reload: true, group: groupHealth, value: "DURATION", def: "30s",
			help: "time it may take to be well at first; it is looked at more often",
			set:  one(parseDuration, func(c *Config) *time.Duration { return &c.Sidecar.Healthcheck.StartupGrace }),
		},
		{
			name: "register_ttl", reload: true, group: groupHealth, value: "SECONDS", def: "90", help: "life of the registration without renewal",
			set: one(parseSeconds, func(c *Config) *time.Duration { return &c.Sidecar.RegisterTTL }),
		},
		{
			name: "register_interval", reload: true, group: groupHealth, value: "SECONDS", def: "30", help: "time between renewals",
			set: one(parseSeconds, func(c *Config) *time.Duration { return &c.Sidecar.RegisterInterval }),
		},
	}
}

func limitSettings() []*setting {
	return []*setting{
		{
			name: "selector", reload: true, group: groupLimits, value: "NAME", def: "p2c", choices: balance.Selectors(),
			help: "how a node is chosen: p2c, roundrobin, leastrequest, random, hash or hash:HEADER (default and cache mean p2c)",
			set:  one(parseSelector, func(c *Config) *string { return &c.Sidecar.Selector }),
		},
		{
			name: "client_pool_size", group: groupLimits, value: "N", def: "1024", help: "idle connections kept a node",
			set: one(parseInt(1, 100_000), func(c *Config) *int { return &c.Sidecar.PoolSize }),
		},
		{
			name: "max_body_size", group: groupLimits, value: "SIZE", def: "4MiB", help: "largest body that is held in memory",
			set: one(parseSize, func(c *Config) *int64 { return &c.Sidecar.MaxBodySize }),
		},
		{
			name: "drain_delay", reload: true, group: groupLimits, value: "DURATION", def: "1s", help: "time between leaving the registry and closing the listeners",
			set: one(parseDuration, func(c *Config) *time.Duration { return &c.Sidecar.DrainDelay }),
		},
		{
			name: "shutdown_grace", reload: true, group: groupLimits, value: "DURATION", def: "10s", help: "time an orderly stop may take",
			set: one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.ShutdownGrace }),
		},
	}
}

func engineSettings() []*setting {
	return []*setting{
		{
			name: "registry", group: groupEngines, value: "NAME", note: "consul if an agent answers, else embedded",
			help: "where services are found; several with commas between",
			set:  one(parseName, func(c *Config) *string { return &c.Sidecar.Engines.Registry }),
		},
		{
			name: "registry_address", group: groupEngines, value: "ADDRESS", help: "HOST:PORT or URL of the registry",
			set: one(parseEngineAddress, func(c *Config) *string { return &c.Sidecar.Engines.RegistryAddress }),
		},
		{
			name: "broker", group: groupEngines, value: "NAME", note: "the registry's engine, else http",
			help: "where messages go",
			set:  one(parseName, func(c *Config) *string { return &c.Sidecar.Engines.Broker }),
		},
		{
			name: "broker_address", group: groupEngines, value: "ADDRESS", help: "HOST:PORT or URL of the broker",
			set: one(parseEngineAddress, func(c *Config) *string { return &c.Sidecar.Engines.BrokerAddress }),
		},
		{
			name: "data_dir", group: groupEngines, value: "DIR", note: "$XDG_STATE_HOME/micro, else ~/.local/state/micro",
			help: "where the embedded engine keeps its files",
			set:  one(parseName, func(c *Config) *string { return &c.Sidecar.Engines.DataDir }),
		},
		{
			name: "engine_address", group: groupEngines, value: "HOST:PORT", def: "127.0.0.1:0",
			help: "where the embedded engine listens",
			set:  one(parseListenTCP, func(c *Config) *string { return &c.Sidecar.Engines.EngineAddress }),
		},
	}
}

func commonSettings() []*setting {
	return []*setting{
		{
			name: "client_request_timeout", reload: true, group: groupCommon, value: "DURATION", def: "5s", help: "time a call may take",
			set: one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.RequestTimeout }),
		},
		{
			name: "config", group: groupCommon, value: "FILE", help: "a YAML file with the same settings",
			set: one(parseName, func(c *Config) *string { return &c.File }),
		},
		{
			name: "log_level", reload: true, group: groupCommon, value: "LEVEL", note: "info for the sidecar, none for commands",
			help: "debug, info, warn or error", choices: []string{"debug", "info", "warn", "error"},
			set: one(parseLevel, func(c *Config) **slog.Level { return &c.LogLevel }),
		},
		{
			name: "log_format", group: groupCommon, value: "text|json", def: "text", choices: []string{"text", "json"},
			help: "form of the log lines on stderr",
			set:  one(parseChoice([]string{"text", "json"}, nil), func(c *Config) *string { return &c.LogFormat }),
		},
		{
			name: "proxy_address", group: groupThrough, value: "ADDRESS", help: "HOST:PORT, URL or unix:/PATH of a sidecar to go through",
			set: one(parseProxy, func(c *Config) **proxyURL { return &c.ProxyAddress }),
		},
		{
			name: "output", group: groupOutput, value: "text|json", def: "text", choices: []string{"text", "json"},
			help: "form of what is printed",
			set:  one(parseChoice([]string{"text", "json"}, nil), func(c *Config) *string { return &c.Output }),
		},
	}
}

// The settings of single commands.

func ttlSetting() *setting {
	return &setting{
		name: "ttl", group: groupCommand, value: "DURATION", note: "until removed", help: "life of the registration",
		only: true, set: one(parsePositive, func(c *Config) *time.Duration { return &c.TTL }),
	}
}

func nodeAddressSetting() *setting {
	return &setting{
		name: "address", group: groupCommand, value: "HOST:PORT", note: "any node", help: "the node to call",
		only: true, noEnv: true, set: one(parseNode, func(c *Config) *hostPort { return &c.nodeAddress }),
	}
}

func timeoutSetting() *setting {
	return &setting{
		name: "timeout", group: groupCommand, value: "DURATION", note: "client_request_timeout", help: "time the call may take",
		only: true, set: one(parsePositive, func(c *Config) *time.Duration { return &c.Sidecar.RequestTimeout }),
	}
}

func queueSetting() *setting {
	return &setting{
		name: "queue", group: groupCommand, value: "NAME", help: "share the messages with all subscribers of this queue",
		only: true, set: one(parseName, func(c *Config) *string { return &c.Queue }),
	}
}

func headerSetting() *setting {
	return &setting{
		name: "header", group: groupCommand, value: "NAME=VALUE", help: "a header of the message; may be given again",
		only: true, list: true, noComma: true,
		set: many(parseHeaders, func(c *Config) *map[string]string { return &c.Headers }),
	}
}
