package main

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseWrk(t *testing.T) {
	const out = `Running 2s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   890.18us  203.02us   4.02ms   81.50%
    Req/Sec    72.02k     2.60k   76.63k    70.00%
  Latency Distribution
     50%  814.00us
     75%    0.98ms
     90%    1.13ms
     99%    1.75ms
  143288 requests in 2.00s, 23.64MB read
Requests/sec:  71644.01
Transfer/sec:     11.82MB
`
	got, err := parseWrk(out)
	if want := (load{143288, 71644.01, 814 * time.Microsecond, 1750 * time.Microsecond}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := parseWrk("unable to connect"); err == nil {
		t.Error("no result passed for one")
	}
}

func TestParseH2load(t *testing.T) {
	const out = `
finished in 1.01s, 16111.00 req/s, 1.63MB/s
requests: 16111 total, 16367 started, 16111 done, 16111 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 16111 2xx, 0 3xx, 0 4xx, 0 5xx
`
	got, err := parseH2load(out)
	if want := (load{requests: 16111, rate: 16111}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for what, change := range map[string][2]string{
		"a refusal": {"0 5xx", "7 5xx"}, "a failure": {"0 failed", "1 failed"},
		"an error": {"0 errored", "1 errored"}, "silence": {"16111 done", "0 done"}, "no result": {"finished", "died"},
	} {
		if got, err := parseH2load(strings.Replace(out, change[0], change[1], 1)); err == nil {
			t.Errorf("%s passed for a result: %+v", what, got)
		}
	}
}

func TestPercentiles(t *testing.T) {
	var log strings.Builder
	for _, n := range []string{"300", "100", "200", "9000"} {
		log.WriteString("1795474488354927\t200\t" + n + "\n")
	}
	if p50, p99, err := percentiles([]byte(log.String())); err != nil || p50 != 200*time.Microsecond || p99 != 300*time.Microsecond {
		t.Errorf("got %v, %v, %v", p50, p99, err)
	}
	for _, bad := range []string{"", "1\t200\n", "1\t200\tx\n"} {
		if _, _, err := percentiles([]byte(bad)); err == nil {
			t.Errorf("%q passed for a log", bad)
		}
	}
}

func TestRatioIsTakenWithinARound(t *testing.T) {
	at := func(rates ...float64) (out []sample) {
		for _, r := range rates {
			out = append(out, sample{load: load{rate: r}})
		}
		return out
	}
	// The machine was half as fast in the second round.
	if got := ratio(at(80, 40, 90), at(100, 50, 100), rate); got != 0.8 {
		t.Errorf("got %v", got)
	}
	if got := middle([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("the middle of four is %v", got)
	}
}

func TestBarsAreHeld(t *testing.T) {
	at := func(cpu, rate float64, p99 time.Duration) []sample {
		return []sample{{load: load{rate: rate, p99: p99 * time.Microsecond}, cpu: cpu}}
	}
	measured := map[string]results{"small-64": {
		haproxy: at(10, 100, 1000), reverse: at(50, 20, 9000),
		proxy: at(16, 70, 2001), jsonRPC: at(20, 1, 1), mucp: at(20.1, 1, 1),
	}}
	var out strings.Builder
	unmet, err := printBars(&out, measured)
	if err != nil || unmet != 2 {
		t.Errorf("%d not met, %v", unmet, err)
	}
	for line := range strings.Lines(out.String()) {
		broken := strings.Contains(line, "p99") || strings.Contains(line, "mucp")
		if broken != strings.Contains(line, "not met") {
			t.Errorf("misjudged: %s", line)
		}
	}
	if strings.Contains(out.String(), "1 MiB") {
		t.Error("a bar was held that nothing was measured for")
	}
}

func TestAddedLatency(t *testing.T) {
	at := func(p50 ...time.Duration) (out []sample) {
		for _, d := range p50 {
			out = append(out, sample{load: load{p50: d * time.Microsecond}})
		}
		return out
	}
	measured := map[string]results{"small-1": {direct: at(50, 100), haproxy: at(90, 180), proxy: at(100, 200)}}
	if got := added("small-1", proxy, haproxy)(measured); got != 1.25 {
		t.Errorf("got %v", got)
	}
}

// Every bar looks at rows and hops that there are.
func TestBarsName(t *testing.T) {
	all := map[string]results{}
	for _, r := range allRows {
		all[r.name] = results{}
		for _, h := range r.hops {
			all[r.name][h.name] = []sample{{load: load{1, 1, 1000, 1000}, cpu: 1, peak: 1}}
		}
	}
	for _, b := range bars {
		if !b.measured(all) {
			t.Errorf("%s: no such row", b.what)
			continue
		}
		b.value(all) // panics when a hop is missing
	}
}

func TestChoose(t *testing.T) {
	rows, err := choose("^small-64$|tls")
	if err != nil || names(rows) != "small-64, tls" {
		t.Errorf("got %s, %v", names(rows), err)
	}
	for _, bad := range []string{"nothing", "("} {
		if _, err := choose(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
