package monitor

import (
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/micro/sidecar/internal/stats"
)

// maxScrapes bounds the scrapes under way: each reads all there is.
const maxScrapes = 4

// Metrics returns the handler of /metrics: Prometheus' text format, or
// OpenMetrics for those who ask for it.
func (m *Monitor) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(m),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// Names are what somebody registered: one that cannot be told is no
		// reason to tell nothing.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	})
}

// collector reads the monitor when it is scraped, so that a request costs no
// more than its counters.
type collector struct {
	m *Monitor

	build, start, services                       *prometheus.Desc
	answers                                      *prometheus.Desc
	requests, errors, duration, inFlight         *prometheus.Desc
	nodeRequests, nodeErrors, nodeDuration       *prometheus.Desc
	nodeInFlight, nodeOpen, nodeServing          *prometheus.Desc
	nodeEjections, retries, retriesRefused       *prometheus.Desc
	published, delivered, dead, subscribers, cut *prometheus.Desc
	topicPublished, topicDelivered               *prometheus.Desc
	engine, application, registered              *prometheus.Desc
	logged                                       *prometheus.Desc
}

func newCollector(m *Monitor) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("micro_"+name, help, labels, nil)
	}
	return &collector{
		m:        m,
		build:    desc("build_info", "The program; always 1.", "version", "go_version"),
		start:    desc("start_time_seconds", "When the sidecar started, in seconds since 1970."),
		services: desc("services_in_use", "Services that requests asked for and that are there."),

		answers: desc("answers_total", "Answers of all listeners, the sidecar's own paths included.", "class"),

		requests: desc("requests_total", "Requests to services, counted when their answer begins.", "service", "protocol", "class"),
		errors:   desc("request_errors_total", "Requests that failed otherwise than by a node's own answer.", "service", "reason"),
		duration: desc("request_duration_seconds", "Time to a service's answer: of a proxied request to its head, of a call to its end.", "service"),
		inFlight: desc("requests_in_flight", "Requests whose answer has not ended.", "service"),

		nodeRequests: desc("node_requests_total", "Tries on a node.", "service", "node", "class"),
		nodeErrors:   desc("node_errors_total", "Tries on a node that failed otherwise than by its own answer.", "service", "node", "reason"),
		nodeDuration: desc("node_request_duration_seconds", "Time to a node's answer.", "service", "node"),
		nodeInFlight: desc("node_requests_in_flight", "Requests that wait for a node's answer.", "service", "node"),
		nodeOpen:     desc("node_open_answers", "Answers of a node that have begun and not ended: bodies, streams, WebSockets.", "service", "node"),
		nodeServing:  desc("node_serving", "Whether a node is in the rotation: 0 while it is failing, ejected or probed.", "service", "node"),

		nodeEjections:  desc("node_ejections_total", "How often a node left the rotation.", "service", "node"),
		retries:        desc("request_retries_total", "Requests that were sent again although a node may have had them.", "service"),
		retriesRefused: desc("request_retries_refused_total", "Requests that were not sent again because the service's budget was spent.", "service"),

		published:      desc("messages_published_total", "Messages that the broker took."),
		delivered:      desc("messages_delivered_total", "Messages that were sent to subscribers."),
		dead:           desc("messages_dead_total", "Messages that were given up and became dead letters."),
		subscribers:    desc("message_subscribers", "Subscribers that are connected."),
		cut:            desc("message_subscribers_cut_total", "Subscribers that were cut because they were too slow."),
		topicPublished: desc("topic_messages_published_total", "Messages that the broker took, by topic.", "topic"),
		topicDelivered: desc("topic_messages_delivered_total", "Messages that were sent to subscribers, by topic.", "topic"),

		engine:      desc("engine_up", "Whether an engine answers.", "kind", "engine"),
		application: desc("application_healthy", "Whether the application's health check passes.", "application"),
		registered:  desc("application_registered", "Whether the application is in the registry.", "application"),
		logged:      desc("access_log_dropped_total", "Lines of the access log that were dropped because its writer was too slow."),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.build, c.start, c.services, c.answers, c.requests, c.errors, c.duration, c.inFlight,
		c.nodeRequests, c.nodeErrors, c.nodeDuration, c.nodeInFlight, c.nodeOpen, c.nodeServing,
		c.nodeEjections, c.retries, c.retriesRefused,
		c.published, c.delivered, c.dead, c.subscribers, c.cut, c.topicPublished, c.topicDelivered,
		c.engine, c.application, c.registered, c.logged,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	e := emitter{to}
	e.gauge(c.build, 1, c.m.Version, runtime.Version())
	e.gauge(c.start, float64(c.m.Stats.Started().UnixMilli())/1e3)
	for class, n := range c.m.Stats.Answers() {
		e.count(c.answers, n, className(class))
	}
	c.collectServices(e)
	c.collectMessages(e)
	for _, at := range list(c.m.Engines) {
		e.flag(c.engine, at.Up, at.Kind, at.Name)
	}
	for _, a := range list(c.m.Applications) {
		e.flag(c.registered, a.Registered, a.Name)
		if a.Checked {
			e.flag(c.application, a.Healthy, a.Name)
		}
	}
	if c.m.LogDropped != nil {
		e.count(c.logged, c.m.LogDropped())
	}
}

func (c *collector) collectServices(e emitter) {
	known := 0
	for s := range c.m.Services() {
		known++
		waiting := int64(0)
		for _, n := range s.Nodes {
			inFlight, open := n.Load.InFlight.Load(), n.Load.Open.Load()
			waiting += inFlight + open
			e.flag(c.nodeServing, state(n).Name == Serving, s.Name, n.ID)
			e.count(c.nodeEjections, uint64(n.State().Ejections), s.Name, n.ID)
			e.gauge(c.nodeInFlight, float64(inFlight), s.Name, n.ID)
			e.gauge(c.nodeOpen, float64(open), s.Name, n.ID)
			var counts stats.Counts
			if n.Meter.Read(&counts) {
				c.collectNode(e, &counts, s.Name, n.ID)
			}
		}
		e.gauge(c.inFlight, float64(waiting), s.Name)
		if s.Account != nil {
			budget := s.Budget.State()
			e.count(c.retries, uint64(budget.Retries), s.Name)
			e.count(c.retriesRefused, uint64(budget.Refused), s.Name)
		}
		var counts stats.Counts
		if s.Meter.Read(&counts) {
			c.collectService(e, &counts, s.Name)
		}
	}
	e.gauge(c.services, float64(known))
}

func (c *collector) collectService(e emitter, counts *stats.Counts, service string) {
	for p := range counts.Classes {
		if counts.Classes[p] == ([stats.Classes]uint64{}) {
			continue
		}
		for class, n := range counts.Classes[p] {
			if n > 0 || class == 2 || class >= 4 { // what alerts are made of is there from the first request on
				e.count(c.requests, n, service, stats.Protocol(p).String(), className(class))
			}
		}
	}
	e.reasons(c.errors, counts, service)
	e.histogram(c.duration, &counts.Latencies, service)
}

func (c *collector) collectNode(e emitter, counts *stats.Counts, service, node string) {
	for class := range stats.Classes {
		n := uint64(0)
		for p := range counts.Classes {
			n += counts.Classes[p][class]
		}
		if n > 0 || class == 2 || class >= 4 {
			e.count(c.nodeRequests, n, service, node, className(class))
		}
	}
	e.reasons(c.nodeErrors, counts, service, node)
	// Without buckets: nodes are many.
	e.send(prometheus.NewConstSummary(c.nodeDuration, counts.Count(), counts.Sum.Seconds(), nil, valid(service, node)...))
}

func (c *collector) collectMessages(e emitter) {
	if c.m.Messages != nil {
		all := c.m.Messages()
		e.count(c.published, uint64(all.Published))
		e.count(c.delivered, uint64(all.Delivered))
		e.count(c.dead, uint64(all.Dead))
		e.count(c.cut, uint64(all.Cut))
		e.gauge(c.subscribers, float64(all.Subscribers))
	}
	for _, t := range c.m.Topics.All() {
		e.count(c.topicPublished, t.Published, t.Name)
		e.count(c.topicDelivered, t.Delivered, t.Name)
	}
}

// className is the label of a status class.
func className(class int) string {
	return [stats.Classes]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}[class]
}

// emitter sends metrics.
type emitter struct{ to chan<- prometheus.Metric }

func (e emitter) send(metric prometheus.Metric, err error) {
	if err == nil { // the labels are as many as were described, and valid
		e.to <- metric
	}
}

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.send(prometheus.NewConstMetric(d, prometheus.GaugeValue, v, valid(labels...)...))
}

func (e emitter) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	e.gauge(d, v, labels...)
}

func (e emitter) count(d *prometheus.Desc, n uint64, labels ...string) {
	e.send(prometheus.NewConstMetric(d, prometheus.CounterValue, float64(n), valid(labels...)...))
}

func (e emitter) reasons(d *prometheus.Desc, c *stats.Counts, labels ...string) {
	for why, n := range c.Reasons {
		if n > 0 {
			e.count(d, n, append(slices.Clone(labels), stats.Reason(why).String())...)
		}
	}
}

// valid makes label values of names, which may be any bytes.
func valid(names ...string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToValidUTF8(n, "\uFFFD")
	}
	return out
}

// Of the histogram's buckets, five to a decade are told, from 100 µs to 60 s.
const (
	leastTold = 100 * time.Microsecond
	mostTold  = 60 * time.Second
)

// told reports whether a bucket's end is one of those that are told: 1, 1.5,
// 2.5, 4 and 6 of each decade.
func told(bound time.Duration) bool {
	if bound < leastTold || bound > mostTold {
		return false
	}
	for bound%10 == 0 {
		bound /= 10
	}
	return slices.Contains([]time.Duration{1, 15, 25, 4, 6}, bound)
}

func (e emitter) histogram(d *prometheus.Desc, l *stats.Latencies, labels ...string) {
	buckets := make(map[float64]uint64, 32)
	below := uint64(0)
	for i, bound := range stats.Bounds() {
		below += l.Buckets[i]
		if told(bound) {
			buckets[bound.Seconds()] = below
		}
	}
	e.send(prometheus.NewConstHistogram(d, l.Count(), l.Sum.Seconds(), buckets, valid(labels...)...))
}
