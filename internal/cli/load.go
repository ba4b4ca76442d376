package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/micro/sidecar/internal/sidecar"
)

// load makes the Config: defaults, then the file, then the environment, then
// the flags, each over the one before. Every value that was given is checked,
// also one that another one hides.
func load(flags *flagSet, env environment, d sidecar.Drivers) (*Config, map[string]origin, error) {
	c := &Config{}
	from := map[string]origin{}
	for _, s := range flags.settings {
		if s.def == "" {
			continue
		}
		if err := s.set(c, s.items(s.def)); err != nil {
			return nil, nil, fmt.Errorf("default of %s: %w", s.name, err)
		}
	}
	if err := applyFile(c, from, flags, env); err != nil {
		return nil, nil, err
	}
	if err := applyEnvironment(c, from, flags, env); err != nil {
		return nil, nil, err
	}
	for _, s := range flags.settings {
		g, ok := flags.given[s.name]
		if !ok {
			continue
		}
		from[s.name] = g.from
		if err := s.set(c, g.items); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", g.from, err)
		}
	}
	if err := c.finish(from, d); err != nil {
		return nil, nil, err
	}
	return c, from, nil
}

// applyFile sets what the configuration file says. It is named by the flag or
// by the environment.
func applyFile(c *Config, from map[string]origin, flags *flagSet, env environment) error {
	path := env.get(envName("config"))
	if g, ok := flags.given["config"]; ok {
		path = g.items[0]
	}
	if path == "" {
		return nil
	}
	table := settingsTable()
	values, err := readFile(path, table)
	if err != nil {
		return err
	}
	for _, v := range values {
		at := origin(fmt.Sprintf("%s:%d: %s", path, v.line, v.name))
		if slices.Contains(meaningless, v.name) {
			flags.ignored = append(flags.ignored, string(at))
			continue
		}
		// An own setting of the command hides the common one of that name,
		// and is not what the file means.
		for _, s := range flags.settings {
			if s.name != v.name || s.only {
				continue
			}
			from[s.name] = at
			if err := s.set(c, v.items); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
	}
	return nil
}

// applyEnvironment sets what the environment says. An empty variable is none,
// and one that the command has no use for is not meant for it.
func applyEnvironment(c *Config, from map[string]origin, flags *flagSet, env environment) error {
	for _, name := range meaningless {
		if env.get(envName(name)) != "" {
			flags.ignored = append(flags.ignored, envName(name))
		}
	}
	for _, s := range flags.settings {
		if !flags.uses(s) {
			continue
		}
		for _, variable := range slices.Backward(s.variables()) {
			value := env.get(variable)
			if value == "" {
				continue
			}
			from[s.name] = origin(variable)
			if err := s.set(c, s.items(value)); err != nil {
				return fmt.Errorf("%s: %w", variable, err)
			}
		}
	}
	return nil
}

// envName is the environment variable of a setting.
func envName(name string) string { return "MICRO_" + strings.ToUpper(name) }
