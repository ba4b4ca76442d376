package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/micro/sidecar/internal/sidecar"
)

// settled is what file, environment and flags say together.
type settled struct {
	values  map[string]given // of the settings that somebody gave
	apps    []fileApp        // in the file's list
	path    string           // of the file, "" without
	ignored []string         // what was given and says nothing
}

// gather reads the file, the environment and the flags, each over the one
// before. Every value that was given is checked, also one that another one
// hides.
func gather(flags *flagSet, env environment) (*settled, error) {
	all := &settled{values: map[string]given{}}
	if err := all.addFile(flags, env); err != nil {
		return nil, err
	}
	if err := all.addEnvironment(flags, env); err != nil {
		return nil, err
	}
	for name, g := range flags.given { // each was checked when it was parsed
		all.values[name] = g
	}
	all.ignored = slices.Concat(flags.ignored, all.ignored)
	return all, nil
}

// add notes what a setting was given, and checks it.
func (all *settled) add(s *setting, from origin, items []string) error {
	if err := s.set(&Config{}, items); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	all.values[s.name] = given{from, items}
	return nil
}

// config makes the Config: the defaults, and what was gathered over them. It
// tells where each value that was given comes from.
func (all *settled) config(flags *flagSet, d sidecar.Drivers) (*Config, map[string]origin, error) {
	c := &Config{apps: all.apps, File: all.path}
	from := map[string]origin{}
	for _, s := range flags.settings {
		if s.def == "" {
			continue
		}
		if err := s.set(c, s.items(s.def)); err != nil {
			return nil, nil, fmt.Errorf("default of %s: %w", s.name, err)
		}
	}
	for _, own := range []bool{false, true} { // --timeout counts more than --client_request_timeout
		for _, s := range flags.settings {
			g, ok := all.values[s.name]
			if !ok || s.only != own {
				continue
			}
			from[s.name] = g.from
			if err := s.set(c, g.items); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", g.from, err)
			}
		}
	}
	return c, from, c.finish(from, d)
}

// addFile adds what the configuration file says. It is named by the flag or by
// the environment.
func (all *settled) addFile(flags *flagSet, env environment) error {
	all.path = env.get(envName("config"))
	if g, ok := flags.given["config"]; ok {
		all.path = g.items[0]
	}
	if all.path == "" {
		return nil
	}
	content, err := readFile(all.path, settingsTable())
	if err != nil {
		return err
	}
	all.apps = content.apps
	for _, v := range content.values {
		at := origin(fmt.Sprintf("%s:%d: %s", all.path, v.line, v.name))
		if slices.Contains(meaningless, v.name) {
			all.ignored = append(all.ignored, string(at))
			continue
		}
		// An own setting of the command hides the common one of that name,
		// and is not what the file means.
		for _, s := range flags.settings {
			if s.name != v.name || s.only {
				continue
			}
			if err := all.add(s, at, v.items); err != nil {
				return err
			}
		}
	}
	return nil
}

// addEnvironment adds what the environment says. An empty variable is none, and
// one that the command has no use for is not meant for it.
func (all *settled) addEnvironment(flags *flagSet, env environment) error {
	for _, name := range meaningless {
		if env.get(envName(name)) != "" {
			all.ignored = append(all.ignored, envName(name))
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
			if err := all.add(s, origin(variable), s.items(value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// envName is the environment variable of a setting.
func envName(name string) string { return "MICRO_" + strings.ToUpper(name) }
