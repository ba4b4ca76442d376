package cli

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

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
// command examples and the flags that it uses.
func (a *app) help(cmd *cobra.Command, _ []string) {
	w := bufio.NewWriter(a.out)
	defer w.Flush() // a help that nobody can read any more is no error
	if cmd.HasAvailableSubCommands() {
		helpOnCommands(w, cmd)
		return
	}
	fmt.Fprintf(w, "%s\n\nUsage: %s\n", firstUpper(cmd.Short), usageLine(cmd))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(w, "Also:  %s\n", strings.Join(cmd.Aliases, ", "))
	}
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n  %s\n", strings.ReplaceAll(cmd.Example, "\n", "\n  "))
	}
	if flags, ok := flagSetOf(cmd); ok {
		flags.print(w)
		fmt.Fprint(w, where)
	}
}

func helpOnCommands(w io.Writer, cmd *cobra.Command) {
	if !cmd.HasParent() {
		fmt.Fprint(w, about, "\n")
	}
	fmt.Fprintf(w, "Usage: %s [FLAG…] COMMAND [ARG…]\n\nCommands:\n", cmd.CommandPath())
	for _, c := range inOrder(cmd.Commands()) {
		if c.IsAvailableCommand() {
			row(w, c.Use, c.Short)
		}
	}
	fmt.Fprintf(w, "\n%s COMMAND --help shows a command's flags and examples;\nmicro sidecar --help shows all the settings of the sidecar.\n", cmd.CommandPath())
	fmt.Fprint(w, where)
}

// The help is made for a terminal of 80 columns.
const (
	helpWidth  = 80
	helpColumn = 31 // where texts begin
)

// row writes what is explained, and beside it the text, wrapped. What is too
// long stands on a line of its own.
func row(w io.Writer, what, text string) {
	line := "  " + what
	if width(line) > helpColumn-2 {
		fmt.Fprintln(w, line)
		line = ""
	}
	line += strings.Repeat(" ", helpColumn-width(line))
	for n, word := range strings.Fields(text) {
		switch {
		case n == 0:
			line += word
		case width(line)+1+width(word) > helpWidth:
			fmt.Fprintln(w, line)
			line = strings.Repeat(" ", helpColumn) + word
		default:
			line += " " + word
		}
	}
	fmt.Fprintln(w, line)
}

// width is the number of columns that text takes.
func width(text string) int { return utf8.RuneCountInString(text) }

// order is that of the help: the sidecar, the registry, calls, messages, the
// rest.
const order = "sidecar list get watch register deregister registry call stream health stats " +
	"publish subscribe queue dead config completion version"

// inOrder puts the commands into the order of the help; the others follow.
func inOrder(commands []*cobra.Command) []*cobra.Command {
	sorted := slices.Clone(commands)
	names := strings.Fields(order)
	place := func(c *cobra.Command) int {
		if at := slices.Index(names, c.Name()); at >= 0 {
			return at
		}
		return len(names)
	}
	slices.SortStableFunc(sorted, func(a, b *cobra.Command) int { return cmp.Compare(place(a), place(b)) })
	return sorted
}

// usageLine is the command's line with what stands before it.
func usageLine(cmd *cobra.Command) string {
	line := strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use + " [FLAG…]"
	if cmd.Name() == "sidecar" {
		line += " [-- CMD ARG…]"
	}
	return line
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
			row(w, flag, text)
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
