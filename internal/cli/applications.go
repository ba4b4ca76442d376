package cli

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/micro/sidecar/internal/child"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/sidecar"
)

// The list of applications in the configuration file. An entry has the
// settings of one application, under their names without "server_".

const (
	appPrefix   = "server_"
	checkKey    = "healthcheck"
	checkPrefix = "healthcheck_"
	commandKey  = "command"
)

// maxApps bounds the list.
const maxApps = 1000

// parseApps reads the list.
func parseApps(list *yaml.Node, settings []*setting) ([]fileApp, error) {
	if list.Kind != yaml.SequenceNode {
		return nil, atLine(list, errors.New(listKey+": expected a list of applications"))
	}
	if len(list.Content) > maxApps {
		return nil, atLine(list, fmt.Errorf("%s: more than %d", listKey, maxApps))
	}
	app, check := vocabulary{settings: map[string]*setting{}}, vocabulary{settings: map[string]*setting{}}
	for _, s := range settings {
		if s.group != groupApp && s.group != groupHealth {
			continue
		}
		app.settings[s.name] = s // people copy
		app.add(strings.TrimPrefix(s.name, appPrefix), s)
		if short, ok := strings.CutPrefix(s.name, checkPrefix); ok {
			check.add(short, s)
		}
	}
	app.names = append(app.names, checkKey, commandKey)
	var out []fileApp
	for _, entry := range list.Content {
		if entry.Kind != yaml.MappingNode {
			return nil, atLine(entry, errors.New(listKey+": expected lines of the form name: value for each"))
		}
		one := fileApp{line: entry.Line}
		var nested []fileValue
		values, err := app.read(entry, func(key, value *yaml.Node) (bool, error) {
			var err error
			switch key.Value {
			case checkKey:
				if value.Kind != yaml.MappingNode {
					return false, atLine(value, errors.New(checkKey+": expected lines such as url: http://127.0.0.1:9090/health"))
				}
				nested, err = check.read(value, nothingSpecial)
			case commandKey:
				one.command, err = parseCommand(value)
			default:
				return false, nil
			}
			return true, err
		})
		if err != nil {
			return nil, err
		}
		one.values = append(values, nested...)
		out = append(out, one)
	}
	return out, nil
}

// parseCommand reads a program and its arguments, each an item of a list: what
// blanks and quotes mean is a shell's affair. A program without arguments may
// stand by itself.
func parseCommand(value *yaml.Node) (fileValue, error) {
	items := value.Content
	if value.Kind == yaml.ScalarNode {
		items = []*yaml.Node{value}
	}
	command := fileValue{name: commandKey, line: value.Line}
	for _, item := range items {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			items = nil
			break
		}
		command.items = append(command.items, item.Value)
	}
	switch {
	case value.Kind == yaml.ScalarNode && strings.ContainsAny(value.Value, " \t\n"), value.Kind == yaml.MappingNode,
		len(items) == 0, items[0].Value == "":
		return fileValue{}, atLine(value, errors.New(commandKey+": expected a list of the program and its arguments, such as [python3, app.py]"))
	}
	return command, nil
}

func nothingSpecial(_, _ *yaml.Node) (bool, error) { return false, nil }

// finishApps makes the applications of the file's list. What rules the health
// checks and registrations of all is the default for each.
func (c *Config) finishApps() error {
	var all []sidecar.Application
	seen := map[string]int{}
	for _, entry := range c.apps {
		app, err := c.application(entry)
		if err != nil {
			return err
		}
		where := app.App.Name + " at " + app.App.Address
		if line, twice := seen[where]; twice {
			return fmt.Errorf("%s:%d: %s stands in line %d already", c.File, entry.line, where, line)
		}
		seen[where] = entry.line
		all = append(all, app)
	}
	s := &c.Sidecar
	if len(c.command) > 0 {
		if s.App.Name == "" && len(all) == 1 && len(all[0].Command) == 0 { // it can only be this one
			s.App, s.Healthcheck = all[0].App, all[0].Healthcheck
			s.RegisterTTL, s.RegisterInterval = all[0].RegisterTTL, all[0].RegisterInterval
			all = nil
		}
		if s.App.Name != "" {
			awaitListener(s)
		}
	}
	s.Applications = all
	return nil
}

// application makes one application of its entry in the file.
func (c *Config) application(entry fileApp) (sidecar.Application, error) {
	one := Config{}
	one.Sidecar.Healthcheck = c.Sidecar.Healthcheck
	one.Sidecar.Healthcheck.URL = ""
	one.Sidecar.RegisterTTL, one.Sidecar.RegisterInterval = c.Sidecar.RegisterTTL, c.Sidecar.RegisterInterval
	settings := map[string]*setting{}
	for _, s := range settingsTable() {
		settings[s.name] = s
	}
	given := map[string]origin{}
	for _, v := range entry.values {
		at := origin(fmt.Sprintf("%s:%d: %s", c.File, v.line, strings.TrimPrefix(v.name, appPrefix)))
		if _, twice := given[v.name]; twice {
			return sidecar.Application{}, fmt.Errorf("%s stands twice", at)
		}
		given[v.name] = at
		if err := settings[v.name].set(&one, v.items); err != nil {
			return sidecar.Application{}, fmt.Errorf("%s: %w", at, err)
		}
	}
	for _, needed := range []string{"server_name", "server_address"} {
		if _, ok := given[needed]; !ok {
			return sidecar.Application{}, fmt.Errorf("%s:%d: an application needs %s", c.File, entry.line, strings.TrimPrefix(needed, appPrefix))
		}
	}
	if err := errors.Join(one.finishApp(given), one.finishRenewal(given)); err != nil {
		return sidecar.Application{}, err
	}
	s := &one.Sidecar
	if entry.command.items != nil {
		if _, err := child.New(entry.command.items, child.Options{}); err != nil {
			return sidecar.Application{}, fmt.Errorf("%s:%d: %s: %w", c.File, entry.command.line, commandKey, err)
		}
		awaitListener(s)
	}
	return sidecar.Application{
		App: s.App, Healthcheck: s.Healthcheck, RegisterTTL: s.RegisterTTL, RegisterInterval: s.RegisterInterval,
		Command: entry.command.items,
	}, nil
}

// awaitListener gives the application, which is started by the sidecar, a health
// check if it has none: what was started a moment ago does not listen yet.
func awaitListener(s *sidecar.Config) {
	if s.Healthcheck.URL == "" {
		s.Healthcheck.URL = health.TCP(s.App.Address)
	}
}
