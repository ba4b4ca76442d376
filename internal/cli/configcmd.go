package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configCommands look at the settings and start nothing.
func configCommands() []command {
	return []command{{
		use: "check [FILE]", short: "check the configuration as the sidecar would",
		long: "FILE is read in the place of --config. Environment and flags count, too. A\n" +
			"mistake is one line and status 2, as it would be at the sidecar's start.",
		examples: []string{"micro config check micro.yaml"},
		groups:   sidecarGroups, run: checkConfig,
	}, {
		use: "show [FILE]", short: "show the effective settings and where they come from",
		long: "FILE is read in the place of --config. What is printed is a configuration\n" +
			"file again, but for secrets, which are left out.",
		examples: []string{"micro config show", "micro config show micro.yaml --handler=proxy", "micro config show --output=json"},
		groups:   append(slices.Clone(sidecarGroups), groupOutput), run: showConfig,
	}}
}

// named reads the file that is the command's argument, and checks everything.
func (i *invocation) named() error {
	if len(i.args) > 0 {
		i.flags.given["config"] = given{"FILE", i.args}
		var err error
		if i.all, err = gather(i.flags, i.env); err != nil {
			return err
		}
		if i.cfg, i.given, err = i.all.config(i.flags, i.drivers); err != nil {
			return err
		}
	}
	if err := i.cfg.finishSidecar(i.given); err != nil {
		return err
	}
	return i.cfg.finishACME(i.given, i.dataDir())
}

func checkConfig(_ context.Context, i *invocation) error {
	if err := i.named(); err != nil {
		return err
	}
	what := i.cfg.File
	if what == "" {
		what = "settings"
	}
	_, err := fmt.Fprintf(i.out, "%s: ok\n", what)
	return fail(err)
}

func showConfig(_ context.Context, i *invocation) error {
	if err := i.named(); err != nil {
		return err
	}
	if i.json() {
		return fail(printJSON(i.out, i.shown()))
	}
	return fail(printShown(i.out, i.shown()))
}

// shownSetting is a setting as people see it.
type shownSetting struct {
	Name  string   `json:"name"`
	Value []string `json:"value"` // one item unless it is a list
	From  string   `json:"from"`  // "--name", "MICRO_NAME", "FILE:LINE" or "default"
	// Note is what becomes of a setting that has no value.
	Note string `json:"note,omitempty"`
	// Reload: a change in the file needs no restart.
	Reload bool `json:"reload"`
	// Application is the number in the list of applications of the one whose
	// setting it is, from 1; 0 if it is the sidecar's.
	Application int `json:"application,omitempty"`

	list bool
}

// shown returns the effective settings, in the order of the help.
func (i *invocation) shown() []shownSetting {
	var out []shownSetting
	for _, group := range sidecarGroups {
		for _, s := range i.flags.settings {
			if s.group != group || s.only || s.name == "config" {
				continue
			}
			one := shownSetting{Name: s.name, Value: i.all.items(s), From: "default", Note: s.note, Reload: s.reload, list: s.list}
			if s.isSwitch() && one.Value == nil {
				one.Value = []string{"false"}
			}
			if g, ok := i.all.values[s.name]; ok {
				one.From = strings.TrimSuffix(string(g.from), ": "+s.name)
			}
			one.Value = redacted(one.Value)
			out = append(out, one)
		}
	}
	for n, app := range i.all.apps {
		values := app.values
		if app.command.items != nil {
			values = append(slices.Clone(values), app.command)
		}
		for _, v := range values {
			out = append(out, shownSetting{
				Name: strings.TrimPrefix(v.name, appPrefix), Value: redacted(v.items), Reload: v.name != commandKey,
				From: i.all.path + ":" + strconv.Itoa(v.line), Application: n + 1,
				list: v.name == "server_metadata" || v.name == commandKey,
			})
		}
	}
	return out
}

// commentColumn is where comments begin, but behind a long value: one that is
// long shall not push all of them out of sight.
const commentColumn = 40

// printShown writes a configuration file whose comments say where each value
// comes from.
func printShown(w io.Writer, all []shownSetting) error {
	out := bufio.NewWriter(w)
	application := 0
	for _, s := range all {
		indent := ""
		switch {
		case s.Application > application:
			if application == 0 {
				fmt.Fprintf(out, "%s:\n", listKey)
			}
			application, indent = s.Application, "  - "
		case s.Application > 0:
			indent = "    "
		}
		line := indent + s.Name + ": " + yamlValue(s)
		if len(s.Value) == 0 {
			line = "# " + s.Name + ":"
		}
		comment := s.From
		if len(s.Value) == 0 && s.Note != "" {
			comment += " (" + s.Note + ")"
		}
		fmt.Fprintf(out, "%-*s  # %s\n", commentColumn-2, line, comment)
	}
	return out.Flush()
}

// yamlValue writes a value on one line.
func yamlValue(s shownSetting) string {
	if !s.list && len(s.Value) > 0 {
		return yamlScalar(s.Value[0])
	}
	items := make([]string, len(s.Value))
	for n, item := range s.Value {
		items[n] = yamlScalar(item)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

var plainScalar = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./:=-]*$`)

// yamlScalar quotes what would not be the same text without quotes.
func yamlScalar(text string) string {
	if plainScalar.MatchString(text) && !strings.HasSuffix(text, ":") {
		return text
	}
	node := yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: text}
	out, err := yaml.Marshal(&node)
	if err != nil {
		return strconv.Quote(text)
	}
	return strings.TrimSuffix(strings.ReplaceAll(string(out), "\n", " "), " ")
}

// secretName is in the names of what nobody shall read over a shoulder.
var secretName = regexp.MustCompile(`(?i)token|secret|passw|apikey|api_key|credential`)

// redacted hides the secrets in URLs and in key=value pairs.
func redacted(items []string) []string {
	out := make([]string, 0, len(items))
	for _, item := range items {
		key, _, pair := strings.Cut(item, "=")
		u, err := url.Parse(item)
		switch {
		case pair && !strings.Contains(key, "/") && secretName.MatchString(key):
			item = key + "=xxxxx"
		case err == nil && u.Host != "":
			query := u.Query()
			for name := range query {
				if secretName.MatchString(name) {
					query.Set(name, "xxxxx")
				}
			}
			if u.RawQuery != "" {
				u.RawQuery = query.Encode()
			}
			if hidden := u.Redacted(); u.User != nil || u.RawQuery != "" {
				item = hidden
			}
		}
		out = append(out, item)
	}
	return out
}
