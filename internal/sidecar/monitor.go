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

		Applications: s.applications,
	}
	if s.cfg.EnableStats {
		m.Sampler = stats.NewSampler(s.stats)
	}
	if s.accessLog != nil {
		m.LogDropped = s.accessLog.Dropped
	}
	return m
}

// applications tells about what the sidecar registers.
func (s *sidecar) applications() []monitor.Application {
	var all []monitor.Application
	if app := s.watched.Load(); app != nil {
		all = append(all, app.tell())
	}
	return all
}

// tell tells about one application, in the registry or not.
func (a *application) tell() monitor.Application {
	node := a.service.Nodes[0]
	healthy := a.state.Healthy()
	out := monitor.Application{
		Name: a.service.Name, Node: node.ID, Address: node.HostPort(),
		Checked: a.prober != nil, Healthy: healthy, Registered: healthy,
	}
	if a.prober == nil {
		return out
	}
	for _, s := range a.prober.Recent() {
		probe := monitor.Probe{At: s.Time, Took: float64(s.Took) / float64(time.Millisecond), Status: s.Status}
		if s.Err != nil {
			probe.Err = s.Err.Error()
		}
		out.Probes = append(out.Probes, probe)
	}
	return out
}

// messages is what messaging has done.
func (s *sidecar) messages() monitor.Messages {
	c := s.messaging.Counts()
	return monitor.Messages{Subscribers: c.Subscribers, Published: c.Published, Delivered: c.Delivered, Cut: c.Cut}
}
