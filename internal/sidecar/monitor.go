package sidecar

import (
	"time"

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

		Applications: s.monitored,
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
	return monitor.Messages{Subscribers: c.Subscribers, Published: c.Published, Delivered: c.Delivered, Cut: c.Cut, Dead: c.Buried}
}

// monitored is how the applications are.
func (s *sidecar) monitored() []monitor.Application {
	var all []monitor.Application
	for _, app := range s.apps.list() {
		node := app.Service.Nodes[0]
		one := monitor.Application{
			Name: app.Service.Name, Node: node.ID, Address: node.HostPort(),
			Checked: app.prober != nil, Healthy: app.Healthy(), Registered: app.Healthy(),
		}
		for _, p := range app.Recent() {
			probe := monitor.Probe{At: p.Time, Took: float64(p.Took) / float64(time.Millisecond), Status: p.Status}
			if p.Err != nil {
				probe.Err = p.Err.Error()
			}
			one.Probes = append(one.Probes, probe)
		}
		all = append(all, one)
	}
	return all
}
