package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// origin says where a value was given, as people know the place:
// "--register_ttl", "MICRO_REGISTER_TTL" or "micro.yaml:3: register_ttl".
type origin string

// given is the items of a setting and where they come from.
type given struct {
	from  origin
	items []string
}

// flagSet collects what the flags of one command say.
type flagSet struct {
	settings []*setting
	groups   []string // of the settings that the command uses
	given    map[string]given
	ignored  []string // go-micro's flags without a meaning here
}

// newFlagSet gives the command a flag for every setting. Of two settings with
// one name the first counts: the command's own come before the common ones.
//
// All commands have all flags, because people keep flags in front of the
// command in scripts and aliases; groups names those that it uses.
func newFlagSet(cmd *cobra.Command, settings []*setting, groups []string) *flagSet {
	f := &flagSet{groups: groups, given: map[string]given{}}
	flags := cmd.Flags()
	flags.SortFlags = false
	for _, s := range settings {
		if flags.Lookup(s.name) != nil {
			continue
		}
		f.settings = append(f.settings, s)
		for _, name := range append([]string{s.name}, s.aliases...) {
			flag := flags.VarPF(&flagValue{set: f, setting: s, name: name}, name, "", s.help)
			flag.Hidden = name != s.name
			if s.isSwitch() {
				flag.NoOptDefVal = "true"
			}
		}
		if len(s.choices) > 0 {
			// It fails for a flag that is not there alone.
			_ = cmd.RegisterFlagCompletionFunc(s.name, cobra.FixedCompletions(s.choices, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	for _, name := range meaningless {
		flags.VarPF(&ignoredValue{set: f, name: name}, name, "", "").Hidden = true
	}
	cmd.SetFlagErrorFunc(f.explain)
	return f
}

// uses reports whether the setting has a meaning for the command.
func (f *flagSet) uses(s *setting) bool { return slices.Contains(f.groups, s.group) }

// useless lists the flags that were given and have no meaning for the command.
func (f *flagSet) useless() []string {
	out := slices.Clone(f.ignored)
	for _, s := range f.settings {
		if g, ok := f.given[s.name]; ok && !f.uses(s) {
			out = append(out, string(g.from))
		}
	}
	return slices.Compact(out)
}

// explain turns an error of the flag parser into our own words.
func (f *flagSet) explain(_ *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return f.unknown(unknown)
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		for _, s := range f.settings {
			if name := missing.GetFlag().Name; s.name == name || slices.Contains(s.aliases, name) {
				return fmt.Errorf("--%s needs a value: --%s=%s", name, name, s.value)
			}
		}
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
	}
	return err
}

// unknown names what a flag that we do not have may have meant.
func (f *flagSet) unknown(err *pflag.NotExistError) error {
	typed, dashes := err.GetSpecifiedName(), "--"
	if short := err.GetSpecifiedShortnames(); short != "" {
		typed, dashes = short, "-"
	}
	name, _, _ := strings.Cut(typed, "=")
	var names []string
	for _, s := range f.settings {
		names = append(names, s.name)
	}
	near := suggestion(name, "--", names)
	if near == "" && dashes == "-" {
		near = "; -- stands before arguments that begin with -"
	}
	return fmt.Errorf("unknown flag %s%s%s", dashes, name, near)
}

// flagValue is a flag, or an older spelling of one.
type flagValue struct {
	set     *flagSet
	setting *setting
	name    string
}

// Set checks the text and adds it to what is given. A list grows with every
// flag; else the last one counts, as everywhere.
func (v *flagValue) Set(text string) error {
	items := v.setting.items(text)
	if err := v.setting.set(&Config{}, items); err != nil {
		return err
	}
	if v.setting.list {
		items = append(v.set.given[v.setting.name].items, items...)
	}
	v.set.given[v.setting.name] = given{origin("--" + v.name), items}
	return nil
}

// String returns the default, which pflag asks for.
func (v *flagValue) String() string {
	if v.setting == nil { // pflag's zero value
		return ""
	}
	return v.setting.def
}

// Type names the value.
func (v *flagValue) Type() string { return v.setting.value }

// ignoredValue is a flag that is accepted and says nothing.
type ignoredValue struct {
	set  *flagSet
	name string
}

// Set notes that the flag was used.
func (v *ignoredValue) Set(string) error {
	v.set.ignored = append(v.set.ignored, "--"+v.name)
	return nil
}

// String returns the default, none.
func (v *ignoredValue) String() string { return "" }

// Type names the value.
func (v *ignoredValue) Type() string { return "string" }
