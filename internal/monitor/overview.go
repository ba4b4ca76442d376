package monitor

import (
	"cmp"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/stats"
)

// maxServices bounds how many services an overview lists.
const maxServices = 500

// Overview is the JSON of /stats: the fields of the 2017 sidecar, and more.
// Times are in RFC 3339 but for those fields; rates are a second, over the last
// 10 s; latencies are milliseconds.
type Overview struct {
	stats.Report
	Now      time.Time `json:"now"`
	Version  string    `json:"version"`
	Process  Process   `json:"process"`
	Requests Requests  `json:"requests"`
	// Selected is the service that Spans are about; "" for all requests.
	Selected string          `json:"selected,omitempty"`
	Spans    map[string]Span `json:"spans"` // "2m" and "60m"
	// Services are those in use here. Of very many, the busiest are listed.
	Services      []Service     `json:"services"`
	ServicesInUse int           `json:"services_in_use"`
	Applications  []Application `json:"applications"`
	Engines       []Engine      `json:"engines"`
	Messages      Messages      `json:"messages"`
	Topics        []Topic       `json:"topics"`
}

// Process is the sidecar's own.
type Process struct {
	ID         int     `json:"pid"`
	Uptime     float64 `json:"uptime_seconds"`
	Go         string  `json:"go_version"`
	Processors int     `json:"processors"` // that it may use
	Heap       uint64  `json:"heap_bytes"`
	Resident   uint64  `json:"resident_bytes,omitempty"` // where the system tells
	Goroutines int     `json:"goroutines"`
	GCs        uint32  `json:"gc_count"`
	GCPause    float64 `json:"gc_pause_ms"`      // in all
	LastPause  float64 `json:"gc_last_pause_ms"` // of the last collection
	GCShare    float64 `json:"gc_cpu_percent"`
}

// Requests sums up all requests.
type Requests struct {
	Rate       float64 `json:"rate"`
	FailedRate float64 `json:"failed_rate"` // answered 5xx
	InFlight   int64   `json:"in_flight"`   // answers that services owe, or have begun
}

// Span is the last two minutes, or the last hour.
type Span struct {
	Requests uint64    `json:"requests"`
	Failures uint64    `json:"failures"`
	Latency  Latency   `json:"latency"`
	Step     float64   `json:"step_seconds"`
	End      int64     `json:"end"` // of the last step, in seconds since 1970
	Rates    Rates     `json:"rates"`
	P50      []float64 `json:"p50"`
	P95      []float64 `json:"p95"`
	P99      []float64 `json:"p99"`
}

// Rates are requests a second by status class, a value a step, oldest first.
type Rates struct {
	None  []float64 `json:"none"` // no answer: the client was gone, or its node
	One   []float64 `json:"1xx"`  // switched protocols
	Two   []float64 `json:"2xx"`
	Three []float64 `json:"3xx"`
	Four  []float64 `json:"4xx"`
	Five  []float64 `json:"5xx"`
}

// Latency is how long answers took, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Traffic is what became of requests to a service or node. Requests, Failures
// and Latency are those of the last two minutes, Total and Errors since the
// start.
type Traffic struct {
	Rate       float64           `json:"rate"`
	FailedRate float64           `json:"failed_rate"`
	Requests   uint64            `json:"requests"`
	Failures   uint64            `json:"failures"`
	Latency    Latency           `json:"latency"`
	InFlight   int64             `json:"in_flight"` // that wait for an answer
	Open       int64             `json:"open"`      // answers that go on: bodies, streams, WebSockets
	Total      uint64            `json:"total"`
	Errors     map[string]uint64 `json:"errors,omitempty"` // by reason
}

// Service is one in use.
type Service struct {
	Name string `json:"name"`
	Traffic
	Nodes []Node `json:"nodes"`
}

// Node is a node of a service.
type Node struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Version  string `json:"version,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	State
	Traffic
}

// Topic is one that messages came through here.
type Topic struct {
	Name          string  `json:"name"`
	Published     uint64  `json:"published"`
	Delivered     uint64  `json:"delivered"`
	PublishedRate float64 `json:"published_rate"`
	DeliveredRate float64 `json:"delivered_rate"`
}

// Overview tells how things are. The spans are about the service selected, ""
// for all; with a filter only services are listed that it is part of, by name
// or by a node's id or address. It needs the sampler.
func (m *Monitor) Overview(selected, filter string) Overview {
	now := time.Now()
	o := Overview{
		Report: m.Stats.Report(), Now: now, Version: m.Version, Process: process(now.Sub(m.Stats.Started())),
		Selected: selected, Spans: map[string]Span{},
		Services: []Service{}, Topics: []Topic{}, Applications: list(m.Applications), Engines: list(m.Engines),
	}
	if m.Messages != nil {
		o.Messages = m.Messages()
	}
	var chosen *stats.Meter
	for s := range m.Services() {
		o.ServicesInUse++
		if s.Name == selected {
			chosen = s.Meter
		}
		for _, n := range s.Nodes {
			o.Requests.InFlight += n.Load.InFlight.Load() + n.Load.Open.Load()
		}
		if matches(s, filter) {
			o.Services = append(o.Services, m.service(s))
		}
	}
	o.Services = busiest(o.Services)
	recent, _ := m.Sampler.Total(stats.TwoMinutes)
	o.Requests.Rate, o.Requests.FailedRate = round(recent.Rate), round(recent.Failed)
	for name, span := range map[string]stats.Span{"2m": stats.TwoMinutes, "60m": stats.Hour} {
		o.Spans[name] = m.span(span, selected, chosen)
	}
	for _, t := range m.Topics.All() {
		o.Topics = append(o.Topics, Topic{t.Name, t.Published, t.Delivered, round(t.PublishedRate), round(t.DeliveredRate)})
	}
	return o
}

// matches reports whether a filter is part of a name of s.
func matches(s *discovery.Service, filter string) bool {
	filter = strings.ToLower(filter)
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), filter) }
	return filter == "" || has(s.Name) || slices.ContainsFunc(s.Nodes, func(n *discovery.Node) bool { return has(n.ID) || has(n.Addr) })
}

// busiest orders services by name, and leaves out the quietest of very many.
func busiest(all []Service) []Service {
	if len(all) > maxServices {
		slices.SortFunc(all, func(a, b Service) int {
			return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Name, b.Name))
		})
		all = all[:maxServices]
	}
	slices.SortFunc(all, func(a, b Service) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (m *Monitor) service(s *discovery.Service) Service {
	out := Service{Name: s.Name, Traffic: m.traffic(s.Meter), Nodes: make([]Node, len(s.Nodes))}
	for i, n := range s.Nodes {
		at := Node{
			ID: n.ID, Address: n.Addr, Version: n.Version, Protocol: n.Metadata["protocol"],
			State: state(n), Traffic: m.traffic(&n.Meter),
		}
		at.InFlight, at.Open = n.Load.InFlight.Load(), n.Load.Open.Load()
		out.InFlight += at.InFlight
		out.Open += at.Open
		out.Nodes[i] = at
	}
	return out
}

func (m *Monitor) traffic(meter *stats.Meter) Traffic {
	var c stats.Counts
	if !meter.Read(&c) {
		return Traffic{}
	}
	r := m.Sampler.Recent(meter)
	t := Traffic{Rate: round(r.Rate), FailedRate: round(r.Failed), Requests: r.Requests, Failures: r.Failures, Latency: latency(r.Quantiles)}
	for p := range c.Classes {
		for _, n := range c.Classes[p] {
			t.Total += n
		}
	}
	for why, n := range c.Reasons {
		if n == 0 {
			continue
		}
		if t.Errors == nil {
			t.Errors = map[string]uint64{}
		}
		t.Errors[stats.Reason(why).String()] = n
	}
	return t
}

// span is what became of the requests to a service, or of all.
func (m *Monitor) span(span stats.Span, selected string, chosen *stats.Meter) Span {
	var recent stats.Recent
	var series stats.Series
	if selected == "" {
		recent, series = m.Sampler.Total(span)
	} else {
		recent, series = m.Sampler.Series(chosen, span)
	}
	out := Span{
		Requests: recent.Requests, Failures: recent.Failures, Latency: latency(recent.Quantiles),
		Step: series.Step.Seconds(), End: series.End.Unix(),
	}
	r := &out.Rates
	for class, values := range map[int]*[]float64{0: &r.None, 1: &r.One, 2: &r.Two, 3: &r.Three, 4: &r.Four, 5: &r.Five} {
		for _, v := range series.Rates[class] {
			*values = append(*values, round(v))
		}
	}
	for _, q := range series.Quantiles {
		l := latency(q)
		out.P50, out.P95, out.P99 = append(out.P50, l.P50), append(out.P95, l.P95), append(out.P99, l.P99)
	}
	return out
}

func latency(q stats.Quantiles) Latency {
	ms := func(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }
	return Latency{ms(q.P50), ms(q.P95), ms(q.P99)}
}

// round leaves three significant digits, and all before the point.
func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, math.Max(0, 2-math.Floor(math.Log10(math.Abs(v)))))
	return math.Round(v*scale) / scale
}

func process(uptime time.Duration) Process {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	ms := func(ns uint64) float64 { return round(float64(ns) / 1e6) }
	p := Process{
		ID: os.Getpid(), Uptime: math.Floor(uptime.Seconds()), Go: runtime.Version(), Processors: runtime.GOMAXPROCS(0),
		Heap: m.HeapAlloc, Resident: resident(), Goroutines: runtime.NumGoroutine(),
		GCs: m.NumGC, GCPause: ms(m.PauseTotalNs), GCShare: round(100 * m.GCCPUFraction),
	}
	if m.NumGC > 0 {
		p.LastPause = ms(m.PauseNs[(m.NumGC+255)%256])
	}
	return p
}
