package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
)

// table is what the plug-ins are entered into.
type table struct {
	drivers sidecar.Drivers
	errs    []error
}

// assemble makes the table of the plug-ins.
func assemble(plugins []Plugin) (sidecar.Drivers, error) {
	t := &table{drivers: sidecar.Drivers{
		Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){},
		Brokers:    map[string]func(context.Context, sidecar.Env) (broker.Broker, error){},
		Selectors:  map[string]balance.Picker{},
	}}
	for _, add := range plugins {
		add(t)
	}
	return t.drivers, errors.Join(t.errs...)
}

// enter puts one thing into the map of its kind.
func enter[T any](t *table, kind, name string, missing bool, into map[string]T, one T) {
	_, twice := into[name]
	switch {
	case !sayable(name):
		t.fail("%s %q: a name is small letters, digits and - _ .", kind, name)
	case missing:
		t.fail("%s %q has no function", kind, name)
	case twice:
		t.fail("%s %q is there twice", kind, name)
	default:
		into[name] = one
	}
}

func (t *table) fail(format string, args ...any) {
	t.errs = append(t.errs, fmt.Errorf(format, args...))
}

// sayable reports whether a flag can name it, alone, in a list or as the scheme
// of a URL (RFC 3986 section 3.1, but for _, which people use).
func sayable(name string) bool {
	const letters, others = "abcdefghijklmnopqrstuvwxyz", "0123456789-_."
	return name != "" && strings.Contains(letters, name[:1]) && strings.Trim(name, letters+others) == ""
}
