package gomicro

import (
	"context"
	"errors"
	"net/url"
	"strings"

	microbroker "go-micro.dev/v5/broker"
	micro "go-micro.dev/v5/registry"

	"github.com/micro/sidecar"
	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
)

// Registry is the line in the table for a registry of go-micro's: create is one
// of its constructors. The hosts of --registry_address become its Addrs, without
// any it uses its own default. Whatever else it is to know, credentials for
// example, a function of your own tells it:
//
//	gomicro.Registry("mine", func(o ...micro.Option) micro.Registry {
//		return etcd.NewEtcdRegistry(append(o, etcd.Auth(user, password))...)
//	})
func Registry(name string, create func(...micro.Option) micro.Registry) sidecar.Plugin {
	if create == nil {
		return sidecar.Registry(name, nil)
	}
	return sidecar.Registry(name, func(ctx context.Context, e sidecar.Env) (registry.Registry, error) {
		hosts, err := hostsOf(e.Address)
		if err != nil {
			return nil, err
		}
		var options []micro.Option
		if len(hosts) > 0 {
			options = append(options, micro.Addrs(hosts...))
		}
		// Some constructors talk to their engine.
		r, err := do(ctx, newCalls(), "open", func() (micro.Registry, error) { return create(options...), nil }, nil)
		if err != nil {
			return nil, err
		}
		if r == nil {
			return nil, errors.New("the constructor returned nothing")
		}
		return NewRegistry(r, Options{Log: e.Log}), nil
	})
}

// Broker is the line in the table for a broker of go-micro's, as [Registry] is
// for registries.
func Broker(name string, create func(...microbroker.Option) microbroker.Broker) sidecar.Plugin {
	if create == nil {
		return sidecar.Broker(name, nil)
	}
	return sidecar.Broker(name, func(ctx context.Context, e sidecar.Env) (broker.Broker, error) {
		hosts, err := hostsOf(e.Address)
		if err != nil {
			return nil, err
		}
		var options []microbroker.Option
		if len(hosts) > 0 {
			options = append(options, microbroker.Addrs(hosts...))
		}
		b, err := do(ctx, newCalls(), "open", func() (microbroker.Broker, error) { return create(options...), nil }, nil)
		if err != nil {
			return nil, err
		}
		if b == nil {
			return nil, errors.New("the constructor returned nothing")
		}
		return NewBroker(ctx, b, Options{Log: e.Log, MaxBodySize: e.MaxBodySize})
	})
}

// hostsOf returns the hosts of an address. What go-micro's Addrs cannot hold is
// refused.
func hostsOf(address *url.URL) ([]string, error) {
	if address == nil {
		return nil, nil
	}
	if address.User != nil || address.RawQuery != "" || strings.Trim(address.Path, "/") != "" || address.Fragment != "" {
		return nil, errors.New("an address of a go-micro plug-in is HOST:PORT, or several at commas; the rest is told in the custom build")
	}
	var hosts []string
	for host := range strings.SplitSeq(address.Host, ",") {
		if host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts, nil
}
