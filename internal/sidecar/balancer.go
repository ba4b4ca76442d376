package sidecar

import (
	"github.com/micro/sidecar/internal/balance"
)

// balancer makes the balancer of all requests to nodes.
func (s *sidecar) balancer(cfg *Config) (*balance.Balancer, error) {
	b, err := s.drivers.Balancer(cfg.Selector)
	if err != nil {
		return nil, err
	}
	b.Retries, b.TryTimeout, b.Limit = cfg.Retries, cfg.TryTimeout, s.limit
	return b, nil
}
