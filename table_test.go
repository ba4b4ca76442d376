package sidecar

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

func openRegistry(context.Context, Env) (registry.Registry, error) { return nil, nil }
func openBroker(context.Context, Env) (broker.Broker, error)       { return nil, nil }

func TestMistakesInTheTable(t *testing.T) {
	for want, plugins := range map[string][]Plugin{
		`registry "mine" is there twice`:      {Registry("mine", openRegistry), Registry("mine", openRegistry)},
		`registry "embedded" is there twice`:  {Standard(), Registry("embedded", openRegistry)},
		`broker "http" is there twice`:        {Broker("http", openBroker), Standard()},
		`registry "mine" has no function`:     {Registry("mine", nil)},
		`broker "mine" has no function`:       {Broker("mine", nil)},
		`registry "": a name is`:              {Registry("", openRegistry)},
		`registry "a,b": a name is`:           {Registry("a,b", openRegistry)},
		`broker "mine://": a name is`:         {Broker("mine://", openBroker)},
		`broker "9": a name is small letters`: {Broker("9", openBroker)},
	} {
		_, err := assemble(plugins)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}

// One name may be a registry's and a broker's.
func TestPluginsAreOpenedWithWhatTheyMayUse(t *testing.T) {
	found := memory.New()
	var got []Env
	d, err := assemble([]Plugin{
		Standard(),
		Registry("mine", func(_ context.Context, e Env) (registry.Registry, error) {
			got = append(got, e)
			return found, nil
		}),
		Broker("mine", func(_ context.Context, e Env) (broker.Broker, error) {
			got = append(got, e)
			return nil, nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	e := sidecar.Env{Address: &url.URL{Scheme: "mine", Host: "there:1"}, MaxBodySize: 7, Registry: found}
	if reg, err := d.Registries["mine"](t.Context(), e); err != nil || reg != registry.Registry(found) {
		t.Errorf("opened %v, %v", reg, err)
	}
	if _, err := d.Brokers["mine"](t.Context(), e); err != nil {
		t.Error(err)
	}
	for _, g := range got {
		if g.Address != e.Address || g.MaxBodySize != 7 || g.Registry != registry.Registry(found) {
			t.Errorf("opened with %+v", g)
		}
	}
	if len(got) != 2 || d.Registries["consul"] == nil || d.Brokers["http"] == nil {
		t.Errorf("opened %d times; the table is %v", len(got), d)
	}
}
