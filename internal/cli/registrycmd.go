package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/registry"
)

// registryCommands are those that are also spelled "micro registry …".
func registryCommands() []command {
	return []command{
		{
			use: "list services", short: "list the services",
			examples: []string{"micro list services", "micro --proxy_address=127.0.0.1:8081 list services --output=json"},
			groups:   clientGroups, run: list,
		},
		{
			use: "get service NAME", short: "show a service: versions, nodes, endpoints",
			examples: []string{"micro get service go.micro.srv.greeter"},
			complete: []completer{serviceNames}, groups: clientGroups, run: get,
		},
		{
			use: "register service JSON", short: "register a service's nodes", groups: clientGroups,
			long: registrationForm, own: []*setting{ttlSetting()}, run: register,
			examples: []string{
				"micro register service \\\n    '{\"name\":\"foo\",\"nodes\":[{\"id\":\"1\",\"address\":\"10.0.0.5:9090\"}]}'",
				"micro register service - --ttl=30s < foo.json",
			},
		},
		{
			use: "deregister service JSON", short: "remove a service's nodes", groups: clientGroups,
			long: registrationForm, run: deregister,
			examples: []string{`micro deregister service '{"name":"foo","nodes":[{"id":"1"}]}'`},
		},
	}
}

const registrationForm = `JSON is as in POST /registry, or - to read it from the standard input:
  {"name":"foo","version":"1",
   "nodes":[{"id":"foo-1","address":"127.0.0.1","port":9090}]}`

func list(ctx context.Context, i *invocation) error {
	return i.withTimeout(ctx, false, func(ctx context.Context, c client) error {
		names, err := c.List(ctx)
		if err != nil {
			return err
		}
		if i.json() {
			services := make([]namedService, len(names))
			for n, name := range names {
				services[n].Name = name
			}
			return printJSON(i.out, services)
		}
		for _, name := range names {
			if _, err := fmt.Fprintln(i.out, visible(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// namedService is a service in the list of all, as GET /registry has it.
type namedService struct {
	Name string `json:"name"`
}

func get(ctx context.Context, i *invocation) error {
	return i.withTimeout(ctx, false, func(ctx context.Context, c client) error {
		name := i.args[0]
		versions, err := c.Get(ctx, name)
		if err != nil {
			return err
		}
		if i.json() {
			for n := range versions {
				versions[n] = registry.Normalize(versions[n])
			}
			return printJSON(i.out, versions)
		}
		return printService(i.out, name, versions)
	})
}

func register(ctx context.Context, i *invocation) error {
	text, err := i.text(ctx, i.args[0])
	if err != nil {
		return err
	}
	s, err := registry.DecodeService(text)
	if err != nil {
		return err
	}
	return i.withTimeout(ctx, false, func(ctx context.Context, c client) error {
		return c.Register(ctx, s, i.cfg.TTL)
	})
}

func deregister(ctx context.Context, i *invocation) error {
	text, err := i.text(ctx, i.args[0])
	if err != nil {
		return err
	}
	s, err := registry.DecodeNodes(text)
	if err != nil {
		return err
	}
	return i.withTimeout(ctx, false, func(ctx context.Context, c client) error {
		return c.Deregister(ctx, s)
	})
}

func watchCommand() command {
	return command{
		use: "watch [services]", short: "print changes of the registry as they happen",
		examples: []string{"micro watch", "micro watch services --output=json"},
		groups:   clientGroups, run: watch,
	}
}

func watch(ctx context.Context, i *invocation) error {
	return i.with(ctx, false, func(c client) error {
		return ended(ctx, c.Watch(ctx,
			func() { i.say("watching services") },
			func(change discovery.Change) error {
				if i.json() {
					change.Service = registry.Normalize(change.Service)
					return printJSON(i.out, change)
				}
				return printChange(i.out, change)
			}))
	})
}

// printChange writes a change on one line: "update foo 1.0.0 foo-1=127.0.0.1:9090".
func printChange(w io.Writer, c discovery.Change) error {
	line := visible(c.Action) + " " + visible(c.Service.Name) + " " + visible(orDash(c.Service.Version))
	for _, n := range c.Service.Nodes {
		line += " " + visible(n.ID) + "=" + visible(n.HostPort())
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// json reports whether the output is for machines.
func (i *invocation) json() bool { return i.cfg.Output == "json" }

// text returns an argument, or what the standard input holds when it is "-".
// Nobody can end a read of the standard input: when ctx ends it is left behind.
func (i *invocation) text(ctx context.Context, argument string) ([]byte, error) {
	if argument != "-" {
		return []byte(argument), nil
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(i.in, maxSize+1))
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, fail(errors.New("interrupted"))
	case r := <-done:
		if r.err != nil {
			return nil, fail(fmt.Errorf("standard input: %w", r.err))
		}
		if len(r.data) > maxSize {
			return nil, fail(fmt.Errorf("standard input holds more than %d bytes", maxSize))
		}
		return r.data, nil
	}
}

// ended is nil when ctx, and so the user, ended a command that runs until then.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
