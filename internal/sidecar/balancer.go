package sidecar

import (
	"github.com/micro/sidecar/internal/balance"
)

// newBalancer makes the balancer of all requests to nodes.
func newBalancer(cfg Config, d Drivers) (*balance.Balancer, error) {
	b, err := d.Balancer(cfg.Selector)
	if err != nil {
		return nil, err
	}
	b.Retries, b.TryTimeout = cfg.Retries, cfg.TryTimeout
	if cfg.MaxConcurrency > 0 {
		b.Limit = balance.NewLimit(cfg.MaxConcurrency)
	}
	return b, nil
}
