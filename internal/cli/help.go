package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

const about = `micro gives an application in any language service discovery, RPC, a proxy and
messaging over plain HTTP, from one small process beside it.
`

const where = `
Every flag --name is also the environment variable MICRO_NAME and the line
"name: value" of the file given with --config. Flags may stand before or after
the command.
`

// helpCommand is another way to write --help.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "show the help of a command",
		Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if about.HasAvailableSubCommands() && len(rest) > 0 {
				return unknownCommand(about, rest)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// help prints the help of the command: of micro itself its commands, of a
// command the flags that it uses.
func (a *app) help(cmd *cobra.Command, _ []string) {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	defer w.Flush() // a help that nobody can read any more is no error
	if cmd.HasAvailableSubCommands() {
		if !cmd.HasParent() {
			fmt.Fprint(w, about, "\n")
		}
		fmt.Fprintf(w, "Usage: %s [FLAG…] COMMAND [ARG…]\n\nCommands:\n", cmd.CommandPath())
		for _, c := range inOrder(cmd.Commands()) {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %s\t%s\n", c.Use, c.Short)
			}
		}
		fmt.Fprintf(w, "\n%s COMMAND --help shows the flags of a command; micro sidecar --help all the\nsettings of the sidecar.\n", cmd.CommandPath())
		fmt.Fprint(w, where)
		return
	}
	fmt.Fprintf(w, "%s\n\nUsage: %s\n", firstUpper(cmd.Short), usageLine(cmd))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "Also:  %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	if flags, ok := flagSetOf(cmd); ok {
		flags.print(w)
		fmt.Fprint(w, where)
	}
}

// inOrder puts the sidecar before the commands that work with one.
func inOrder(commands []*cobra.Command) []*cobra.Command {
	sorted := slices.Clone(commands)
	slices.SortStableFunc(sorted, func(a, b *cobra.Command) int {
		switch {
		case a.Name() == "sidecar":
			return -1
		case b.Name() == "sidecar":
			return +1
		}
		return 0
	})
	return sorted
}

// usageLine is the command's line with what stands before it.
func usageLine(cmd *cobra.Command) string {
	return strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use + " [FLAG…]"
}

// flagSetOf finds the flagSet behind the flags of cmd.
func flagSetOf(cmd *cobra.Command) (*flagSet, bool) {
	flag := cmd.Flags().Lookup("config")
	if flag == nil {
		return nil, false
	}
	v, ok := flag.Value.(*flagValue)
	if !ok {
		return nil, false
	}
	return v.set, true
}

// print writes the settings that the command uses, by group.
func (f *flagSet) print(w io.Writer) {
	for _, group := range f.groups {
		members := slices.DeleteFunc(slices.Clone(f.settings), func(s *setting) bool { return s.group != group })
		if len(members) == 0 || group == groupLimits && slices.Contains(f.groups, groupCommand) {
			continue // limits are accepted by all commands, but no matter for most
		}
		fmt.Fprintf(w, "\n%s:\n", group)
		for _, s := range members {
			flag := "--" + s.name
			if !s.isSwitch() {
				flag += " " + s.value
			}
			text := s.help
			if def := s.def + s.note; def != "" {
				text += " [" + def + "]"
			}
			fmt.Fprintf(w, "  %s\t%s\n", flag, text)
		}
	}
}

// firstUpper begins a sentence.
func firstUpper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
