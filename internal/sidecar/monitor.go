package sidecar

import (
	"github.com/micro/sidecar/internal/monitor"
	"github.com/micro/sidecar/internal/stats"
)

// newMonitor is what tells about the sidecar once discovery and engines are
// there.
func (s *sidecar) newMonitor() *monitor.Monitor {
	m := &monitor.Monitor{
		Version:  s.cfg.Observe.Version,
		Stats:    s.stats,
		Topics:   new(stats.Topics),
		Services: s.discovery.Known,
		Engines:  s.engines.States,
	}
	if s.cfg.EnableStats {
		m.Sampler = stats.NewSampler(s.stats)
	}
	if s.accessLog != nil {
		m.LogDropped = s.accessLog.Dropped
	}
	return m
}

// messages is what messaging has done.
func (s *sidecar) messages() monitor.Messages {
	c := s.messaging.Counts()
	return monitor.Messages{Subscribers: c.Subscribers, Published: c.Published, Delivered: c.Delivered, Cut: c.Cut}
}
