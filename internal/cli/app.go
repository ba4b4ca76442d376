package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micro/sidecar/internal/sidecar"
)

// app is one run of micro.
type app struct {
	*streams
	drivers  sidecar.Drivers
	settings []*setting // the table

	// chosen runs the command that was asked for; nil when cobra has done it.
	chosen func(ctx context.Context) error
}

// invocation is a command that is about to run: all that it was told.
type invocation struct {
	*app
	cfg   *Config
	given map[string]origin
	args  []string

	flags *flagSet // to load again
	all   *settled // what cfg is made of
	level slog.LevelVar
}

// command describes one command of micro. use is its line in the help: words
// in small letters are typed as they stand, words in capitals are arguments,
// brackets are around what may be left out.
type command struct {
	use     string
	under   string // the command that it stands under, "" for micro itself
	aliases []string
	short   string
	long    string
	// examples are command lines to copy.
	examples []string
	// complete offers values for the arguments in capital letters, in turn.
	complete []completer
	own      []*setting
	groups   []string
	child    bool // what stands after -- is another program's command line
	run      func(ctx context.Context, i *invocation) error
}

// The groups of settings that the commands use.
var (
	sidecarGroups = []string{groupSidecar, groupApp, groupHealth, groupLimits, groupEngines, groupObserve, groupCommon}
	clientGroups  = []string{groupCommand, groupThrough, groupOutput, groupEngines, groupLimits, groupCommon}
	localGroups   = []string{groupOutput, groupCommon}
)

// root makes the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "micro", SilenceErrors: true, SilenceUsage: true,
		Args:              cobra.ArbitraryArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	// Not cobra's own: a template makes the linker keep every method there is.
	version := root.Flags().Bool("version", false, "print the version")
	newFlagSet(root, a.settings, sidecarGroups)
	root.SetHelpFunc(a.help)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpFlag() // known before the command is looked for: "micro --help call"
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *version {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine())
			return fail(err)
		}
		return unknownCommand(cmd, args)
	}

	registry := &cobra.Command{
		Use: "registry COMMAND", Short: "the registry: list, get, register, deregister",
		Args: cobra.ArbitraryArgs, RunE: unknownCommand,
	}
	newFlagSet(registry, a.settings, clientGroups)
	for _, c := range registryCommands() {
		registry.AddCommand(a.cobra(c))
		root.AddCommand(a.cobra(c))
	}
	config := &cobra.Command{
		Use: "config COMMAND", Short: "the configuration: check, show",
		Args: cobra.ArbitraryArgs, RunE: unknownCommand,
	}
	newFlagSet(config, a.settings, sidecarGroups)
	for _, c := range configCommands() {
		config.AddCommand(a.cobra(c))
	}
	root.AddCommand(registry, config, a.completion())
	for _, parent := range messagingParents() {
		root.AddCommand(a.parent(parent))
	}
	for _, c := range []command{
		sidecarCommand(), watchCommand(), callCommand(), streamCommand(), healthCommand(), statsCommand(),
		publishCommand(), subscribeCommand(), versionCommand(),
	} {
		root.AddCommand(a.cobra(c))
	}
	return root
}

// parent makes a command that only has commands of its own.
func (a *app) parent(p parentCommand) *cobra.Command {
	cmd := &cobra.Command{Use: p.name + " COMMAND", Short: p.short, Args: cobra.ArbitraryArgs, RunE: unknownCommand}
	newFlagSet(cmd, a.settings, clientGroups)
	for _, c := range p.commands {
		c.under, c.groups = p.name, clientGroups
		cmd.AddCommand(a.cobra(c))
	}
	return cmd
}

// unknownCommand is the error of a command that has subcommands and got none
// of them.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("a command is missing; %s --help lists them", cmd.CommandPath())
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(append(names, c.Name()), c.Aliases...)
		}
	}
	return fmt.Errorf("unknown command %q%s; %s --help lists them",
		args[0], suggestion(args[0], "", names), cmd.CommandPath())
}

// cobra makes the cobra command: parse, check, warn, choose.
func (a *app) cobra(c command) *cobra.Command {
	cmd := &cobra.Command{Use: c.use, Aliases: c.aliases, Short: c.short, Long: c.long, DisableFlagsInUseLine: true}
	cmd.Example = strings.Join(c.examples, "\n")
	flags := newFlagSet(cmd, append(c.own, a.settings...), c.groups)
	cmd.Args = cobra.ArbitraryArgs
	cmd.ValidArgsFunction = a.completions(c, flags)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		all, err := gather(flags, a.env)
		if err != nil {
			return err
		}
		cfg, from, err := all.config(flags, a.drivers)
		if err != nil {
			return err
		}
		if at := cmd.ArgsLenAtDash(); c.child && at >= 0 {
			if cfg.command, args = args[at:], args[:at]; len(cfg.command) == 0 || cfg.command[0] == "" {
				return errors.New("a command is missing after --; usage: micro sidecar [FLAG…] -- CMD [ARG…]")
			}
		}
		rest, err := arguments(cmd, args)
		if err != nil {
			return err
		}
		if useless := flags.useless(all.ignored); len(useless) > 0 {
			a.say("%s: no meaning for %s, ignored", strings.Join(useless, ", "), cmd.CommandPath())
		}
		a.chosen = func(ctx context.Context) error {
			return c.run(ctx, &invocation{app: a, cfg: cfg, given: from, args: rest, flags: flags, all: all})
		}
		return nil
	}
	return cmd
}

// arguments holds args against the line in the help and returns those that
// stand for words in capitals.
func arguments(cmd *cobra.Command, args []string) ([]string, error) {
	words := strings.Fields(cmd.Use)
	form := "usage: " + strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use
	var out []string
	for _, word := range words[1:] {
		name := strings.Trim(word, "[]")
		optional := name != word
		switch {
		case len(args) == 0 && optional:
			return out, nil
		case len(args) == 0, args[0] == "" && !optional:
			return nil, fmt.Errorf("%s is missing; %s", name, form)
		case name == strings.ToLower(name) && args[0] != name:
			return nil, fmt.Errorf("expected %q, not %q; %s", name, args[0], form)
		case name != strings.ToLower(name):
			out = append(out, args[0])
		}
		args = args[1:]
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("unexpected argument %q; %s", args[0], form)
	}
	return out, nil
}

// completion makes the command that prints a shell's completion script.
func (a *app) completion() *cobra.Command {
	cmd := &cobra.Command{
		Use: "completion SHELL", Short: "print the completion script of bash, zsh, fish or powershell",
		Long: "Load it in the shell's start file; it completes commands, flags, their values\n" +
			"and the names of services.",
		Example: "source <(micro completion bash)\nmicro completion zsh > \"${fpath[1]}/_micro\"\n" +
			"micro completion fish > ~/.config/fish/completions/micro.fish\n" +
			"micro completion powershell | Out-String | Invoke-Expression",
		Args: cobra.ArbitraryArgs, ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		DisableFlagsInUseLine: true,
	}
	newFlagSet(cmd, a.settings, localGroups)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		args, err := arguments(cmd, args)
		if err != nil {
			return err
		}
		root, out := cmd.Root(), cmd.OutOrStdout()
		switch args[0] {
		case "bash":
			return fail(root.GenBashCompletionV2(out, true))
		case "zsh":
			return fail(root.GenZshCompletion(out))
		case "fish":
			return fail(root.GenFishCompletion(out, true))
		case "powershell":
			return fail(root.GenPowerShellCompletionWithDesc(out))
		}
		return expected(args[0], "bash, zsh, fish or powershell")
	}
	return cmd
}
