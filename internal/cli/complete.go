package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionPatience bounds what somebody who pressed Tab waits for.
const completionPatience = time.Second

// completer offers values for an argument; before holds the arguments in
// capital letters that stand in front of it.
type completer func(ctx context.Context, c client, before []string) ([]string, error)

// completions answers the shell that completes an argument: words that are
// typed as they stand, and what the command's completers know. Whatever fails
// offers nothing.
func (a *app) completions(c command, flags *flagSet) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		words := strings.Fields(c.use)[1:]
		if len(args) >= len(words) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if word := strings.Trim(words[len(args)], "[]"); word == strings.ToLower(word) {
			return []string{word}, cobra.ShellCompDirectiveNoFileComp
		} else if word == "FILE" {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var before []string
		for n, arg := range args {
			if word := words[n]; word != strings.ToLower(word) {
				before = append(before, arg)
			}
		}
		if len(before) >= len(c.complete) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		offered, err := a.offer(cmd.Context(), flags, c.complete[len(before)], before)
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// offer asks the engines, or the sidecar that the flags name.
func (a *app) offer(ctx context.Context, flags *flagSet, complete completer, before []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	all, err := gather(flags, a.env)
	if err != nil {
		return nil, err
	}
	cfg, from, err := all.config(flags, a.drivers)
	if err != nil {
		return nil, err
	}
	i := &invocation{app: a, cfg: cfg, given: from, flags: flags, all: all}
	var offered []string
	err = i.with(ctx, false, func(c client) error {
		offered, err = complete(ctx, c, before)
		return err
	})
	return offered, err
}

// serviceNames offers the services that are registered.
func serviceNames(ctx context.Context, c client, _ []string) ([]string, error) { return c.List(ctx) }

// methodNames offers the methods that a service has told of, and those that
// every go-micro service has.
func methodNames(ctx context.Context, c client, before []string) ([]string, error) {
	versions, err := c.Get(ctx, before[0])
	if err != nil {
		return nil, err
	}
	var names []string
	for _, v := range versions {
		for _, e := range v.Endpoints {
			names = append(names, e.Name)
		}
	}
	names = append(names, "Debug.Health", "Debug.Stats")
	slices.Sort(names)
	return slices.Compact(names), nil
}
