package monitor

import (
	"iter"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// busy is a monitor that has something of everything to tell.
func busy() *Monitor {
	counted := stats.New()
	n := discovery.NewNode(registry.Node{ID: "orders-1", Address: "127.0.0.1", Port: 9090}, "1.0")
	out := discovery.NewNode(registry.Node{ID: "orders-2", Address: "127.0.0.1", Port: 9091}, "1.0")
	s := discovery.NewService("go.micro.srv.orders", []*discovery.Node{n, out})
	odd := discovery.NewService("odd\xff\"\n", nil)
	odd.Meter.Record(stats.Proxy, 503, stats.NoNode, 0)
	for range 3 {
		counted.Count(200)
		s.Meter.Record(stats.Proxy, 200, stats.NoReason, 12*time.Millisecond)
		n.Meter.Record(stats.Proxy, 200, stats.NoReason, 12*time.Millisecond)
	}
	counted.Count(504)
	s.Meter.Record(stats.RPC, 504, stats.Timeout, 5*time.Second)
	n.Meter.Record(stats.RPC, 0, stats.Timeout, 0)
	n.Load.InFlight.Store(2)
	out.Load.Failed.Store(1)
	topics := new(stats.Topics)
	topics.Published("news")
	return &Monitor{
		Version: "1.2.3", Stats: counted, Topics: topics, Sampler: stats.NewSampler(counted),
		Services: func() iter.Seq[*discovery.Service] { return slices.Values([]*discovery.Service{s, odd}) },
		Engines: func() []Engine {
			return []Engine{{Kind: "registry", Name: "consul", Up: true}, {Kind: "broker", Name: "http", Err: "refused"}}
		},
		Applications: func() []Application {
			return []Application{{Name: "web", Checked: true, Healthy: true, Registered: true}}
		},
		Messages:   func() Messages { return Messages{Subscribers: 1, Published: 1, Dead: 2} },
		LogDropped: func() uint64 { return 0 },
	}
}

func scrape(t *testing.T, m *Monitor, accept string) (contentType, text string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	m.Metrics().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Header().Get("Content-Type"), w.Body.String()
}

func TestMetricsArePrometheusForm(t *testing.T) {
	problems, err := testutil.CollectAndLint(newCollector(busy()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(busy()))
	if _, err := registry.Gather(); err != nil {
		t.Error(err)
	}
}

func TestMetricsTell(t *testing.T) {
	contentType, text := scrape(t, busy(), "")
	if !strings.HasPrefix(contentType, "text/plain") {
		t.Errorf("type %s", contentType)
	}
	for _, want := range []string{
		`micro_answers_total{class="2xx"} 3`,
		`micro_requests_total{class="2xx",protocol="proxy",service="go.micro.srv.orders"} 3`,
		`micro_requests_total{class="5xx",protocol="rpc",service="go.micro.srv.orders"} 1`,
		`micro_request_errors_total{reason="timeout",service="go.micro.srv.orders"} 1`,
		`micro_request_errors_total{reason="no_node",service="odd�\"\n"} 1`,
		`micro_request_duration_seconds_bucket{service="go.micro.srv.orders",le="0.01"} 0`,
		`micro_request_duration_seconds_bucket{service="go.micro.srv.orders",le="0.015"} 3`,
		`micro_request_duration_seconds_bucket{service="go.micro.srv.orders",le="6"} 4`,
		`micro_request_duration_seconds_count{service="go.micro.srv.orders"} 4`,
		`micro_requests_in_flight{service="go.micro.srv.orders"} 2`,
		`micro_node_requests_total{class="none",node="orders-1",service="go.micro.srv.orders"} 1`,
		`micro_node_errors_total{node="orders-1",reason="timeout",service="go.micro.srv.orders"} 1`,
		`micro_node_serving{node="orders-1",service="go.micro.srv.orders"} 1`,
		`micro_node_serving{node="orders-2",service="go.micro.srv.orders"} 0`,
		`micro_engine_up{engine="consul",kind="registry"} 1`,
		`micro_engine_up{engine="http",kind="broker"} 0`,
		`micro_application_healthy{application="web"} 1`,
		`micro_topic_messages_published_total{topic="news"} 1`,
		`micro_messages_dead_total 2`,
		`micro_services_in_use 2`,
		"go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(text, `node="orders-2",reason`) {
		t.Error("a node that was not asked has errors")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestMetricsAreOpenMetricsForWhoAsks(t *testing.T) {
	contentType, text := scrape(t, busy(), "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("type %s, the end %q", contentType, text[max(len(text)-40, 0):])
	}
}

// The page lists what there is, and nothing else.
func TestTheDocumentsListTheMetrics(t *testing.T) {
	page, err := os.ReadFile("../../docs/statistics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("(?m)^\\| `(micro_[a-z_]+)")
	var told, real []string
	for _, m := range names.FindAllStringSubmatch(string(page), -1) {
		told = append(told, m[1])
	}
	_, text := scrape(t, busy(), "")
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (micro_\w+)`).FindAllStringSubmatch(text, -1) {
		real = append(real, m[1])
	}
	slices.Sort(told)
	slices.Sort(real)
	if !slices.Equal(told, real) {
		t.Errorf("docs/statistics.md lists\n%s\nand there are\n%s", strings.Join(told, "\n"), strings.Join(real, "\n"))
	}
}

func TestOverview(t *testing.T) {
	m := busy()
	m.Sampler.Look(time.Now(), m.meters)
	o := m.Overview("", "")
	if len(o.Services) != 2 || o.ServicesInUse != 2 || o.Requests.InFlight != 2 || o.Version != "1.2.3" {
		t.Fatalf("%+v", o)
	}
	s := o.Services[0]
	if s.Name != "go.micro.srv.orders" || s.Requests != 4 || s.Failures != 1 || s.Total != 4 || s.InFlight != 2 || s.Errors["timeout"] != 1 || s.Latency.P50 < 10 || s.Latency.P50 > 15 {
		t.Errorf("%+v", s)
	}
	if n := s.Nodes[0]; n.Address != "127.0.0.1:9090" || n.State.Name != Serving || n.Total != 4 || n.Failures != 1 || n.Rate != 0.4 {
		t.Errorf("%+v", n)
	}
	if n := s.Nodes[1]; n.State.Name != Failing {
		t.Errorf("%+v", n)
	}
	if o := m.Overview("", "ORDERS-2"); len(o.Services) != 1 || o.ServicesInUse != 2 {
		t.Errorf("filtered: %+v", o.Services)
	}
	if o := m.Overview("go.micro.srv.orders", ""); o.Spans["2m"].Requests != 4 || o.Selected != "go.micro.srv.orders" {
		t.Errorf("selected: %+v", o.Spans["2m"])
	}
	if o := m.Overview("no.such.service", ""); o.Spans["60m"].Requests != 0 || len(o.Spans["60m"].P99) != 60 {
		t.Errorf("of a service that is not there: %+v", o.Spans["60m"])
	}
}

func TestTheBusiestOfVeryManyAreListed(t *testing.T) {
	var all []Service
	for i := range 3 * maxServices {
		s := Service{Name: strings.Repeat("s", i%7+1) + string(rune('a'+i%26))}
		s.Requests = uint64(i)
		all = append(all, s)
	}
	out := busiest(all)
	if len(out) != maxServices || !slices.IsSortedFunc(out, func(a, b Service) int { return strings.Compare(a.Name, b.Name) }) {
		t.Fatalf("%d services", len(out))
	}
	for _, s := range out {
		if s.Requests < 2*maxServices {
			t.Errorf("one with %d requests is there", s.Requests)
		}
	}
}

func TestRound(t *testing.T) {
	for in, want := range map[float64]float64{0: 0, 1234.56: 1235, 12.345: 12.3, 0.012345: 0.0123, 5: 5, 99.95: 100} {
		if got := round(in); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v: %v, want %v", in, got, want)
		}
	}
}
