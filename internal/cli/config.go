package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/sidecar"
)

// Config is what all settings together say. The settings of a command that
// does not run are at their defaults.
type Config struct {
	// Sidecar is the sidecar's own part; commands use its Engines and
	// RequestTimeout.
	Sidecar sidecar.Config

	File         string      // --config
	ProxyAddress *proxyURL   // nil: talk to the engines directly
	Output       string      // text or json
	LogLevel     *slog.Level // nil: info for the sidecar, silence for commands
	LogFormat    string      // text or json

	// Settings of single commands.
	TTL     time.Duration     // register: 0 = until removed
	Queue   string            // subscribe
	Headers map[string]string // publish

	messageID string        // publish
	delay     time.Duration // publish
	ack       bool          // subscribe
	limit     int           // dead list
	all       bool          // dead drop

	tls             tlsFiles
	authTokenFile   string // --auth_token_file
	credentials     credentials
	acme            acmeSetting
	serverAddress   hostPort // --server_address
	serverAdvertise hostPort // --server_advertise
	nodeAddress     hostPort // call: the one node to call

	apps    []fileApp // the list of applications in the file
	command []string  // sidecar: what stands after --
}

// defaultAddresses are the sidecar's listeners when --address says nothing.
func defaultAddresses() []string { return []string{"127.0.0.1:8081", "[::1]:8081"} }

// finish fills in what follows from several settings together and refuses
// what does not fit together. given tells which settings somebody gave.
func (c *Config) finish(given map[string]origin, d sidecar.Drivers) error {
	c.Sidecar.Engines.MaxBodySize = c.Sidecar.MaxBodySize
	if len(c.Sidecar.Addresses) == 0 {
		c.Sidecar.Addresses = defaultAddresses()
		if c.acme.enable {
			c.Sidecar.Addresses = []string{":443"}
		}
	}
	if err := c.finishSelector(given, d); err != nil {
		return err
	}
	return c.finishEngines(given, d)
}

// finishSelector refuses a selector that nobody knows.
func (c *Config) finishSelector(given map[string]origin, d sidecar.Drivers) error {
	selector := c.Sidecar.Selector
	if _, err := d.Balancer(selector); err != nil {
		names := append(balance.Selectors(), slices.Sorted(maps.Keys(d.Selectors))...)
		return fmt.Errorf("%s: %w", given["selector"], expected(selector, strings.Join(names, ", ")+" or hash:HEADER with the name of a header field"))
	}
	return nil
}

// finishSidecar is finish for what only the command sidecar needs.
func (c *Config) finishSidecar(given map[string]origin) error {
	return errors.Join(c.finishRunning(given), c.finishTLS(given), c.finishAuth(given))
}

// finishRunning is finishSidecar for what can change while it runs.
func (c *Config) finishRunning(given map[string]origin) error {
	if err := errors.Join(c.finishApp(given), c.finishTimes(given), c.finishSubscriptions(given)); err != nil {
		return err
	}
	return c.finishApps()
}

// finishApp checks the application's settings and splits what is registered.
func (c *Config) finishApp(given map[string]origin) error {
	app := &c.Sidecar.App
	switch {
	case app.Name != "" && c.serverAddress.host == "":
		return fmt.Errorf("%s needs --server_address, the HOST:PORT of the application", given["server_name"])
	case app.Name == "" && c.serverAddress.host != "":
		return fmt.Errorf("%s needs --server_name, the name to register the application under", given["server_address"])
	case app.Name == "":
		for _, name := range []string{"server_advertise", "server_version", "server_id", "server_metadata"} {
			if from, ok := given[name]; ok {
				return fmt.Errorf("%s needs --server_name and --server_address", from)
			}
		}
		return nil
	}
	app.Address = c.serverAddress.String()
	registered := c.serverAddress
	if c.serverAdvertise.host != "" {
		registered = c.serverAdvertise
	}
	app.Host, app.Port = registered.host, registered.port
	return nil
}

// finishTimes holds durations against each other. One that nobody gave follows
// the other; two that contradict each other are a mistake.
func (c *Config) finishTimes(given map[string]origin) error {
	s := &c.Sidecar
	if s.DrainDelay >= s.ShutdownGrace {
		if from, ok := given["drain_delay"]; ok {
			return fmt.Errorf("%s: %s is not shorter than shutdown_grace, which is %s",
				from, s.DrainDelay, s.ShutdownGrace)
		}
		s.DrainDelay = s.ShutdownGrace / 4
	}
	return c.finishRenewal(given)
}

// finishRenewal is finishTimes for the registration.
func (c *Config) finishRenewal(given map[string]origin) error {
	s := &c.Sidecar
	if s.RegisterInterval >= s.RegisterTTL {
		if from, ok := given["register_interval"]; ok {
			return fmt.Errorf("%s: %s is not shorter than register_ttl, which is %s",
				from, s.RegisterInterval, s.RegisterTTL)
		}
		s.RegisterInterval = s.RegisterTTL / 3
	}
	return nil
}

// finishEngines checks the engines' names against what this build knows. An
// address without a name names its engine by its scheme; without a scheme it
// is Consul's, whose address --registry_address was in 2017.
func (c *Config) finishEngines(given map[string]origin, d sidecar.Drivers) error {
	e := &c.Sidecar.Engines
	if e.Registry == "" && e.RegistryAddress != "" {
		e.Registry = "consul"
		scheme, _, _ := strings.Cut(e.RegistryAddress, "://")
		if _, ok := d.Registries[scheme]; ok {
			e.Registry = scheme
		}
		given["registry"] = given["registry_address"]
	}
	if e.Broker == "" && e.BrokerAddress != "" {
		scheme, _, ok := strings.Cut(e.BrokerAddress, "://")
		if !ok {
			return fmt.Errorf("%s needs --broker, or a URL whose scheme names it", given["broker_address"])
		}
		e.Broker = scheme
		given["broker"] = given["broker_address"]
	}
	names := strings.Split(e.Registry, ",")
	for i, name := range names {
		if err := known(name, given["registry"], d.Registries); err != nil {
			return err
		}
		if len(names) > 1 && (name == "" || slices.Contains(names[:i], name)) {
			return fmt.Errorf("%s: %q: expected names with commas between, each once", given["registry"], e.Registry)
		}
	}
	if err := known(e.Broker, given["broker"], d.Brokers); err != nil {
		return err
	}
	// Who goes through a sidecar needs no address that is not there.
	unused := e.RegistryAddress == "" && c.ProxyAddress != nil
	if err := d.Check(e.Registry, e.RegistryAddress); err != nil && !unused {
		if e.RegistryAddress == "" {
			return fmt.Errorf("%s needs --registry_address: %w", given["registry"], err)
		}
		return fmt.Errorf("%s: %w", given["registry_address"], err)
	}
	if err := d.CheckBrokerAddress(e.Broker, e.BrokerAddress); err != nil {
		return fmt.Errorf("%s: %w", given["broker_address"], err)
	}
	return nil
}

// known refuses an engine's name that the table lacks.
func known[T any](name string, from origin, table map[string]T) error {
	if _, ok := table[name]; ok || name == "" {
		return nil
	}
	return fmt.Errorf("%s: %q is not in this build, which knows %s",
		from, name, strings.Join(slices.Sorted(maps.Keys(table)), ", "))
}
