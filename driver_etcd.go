package sidecar

import (
	"context"

	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/etcd"
)

// etcdRegistry opens the etcd cluster at the address, or the one of this
// machine.
func etcdRegistry(_ context.Context, e sidecar.Env) (registry.Registry, error) {
	reg, err := etcd.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}
