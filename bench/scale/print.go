package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one measure of both sidecars.
type row struct {
	what        string
	small, big  float64
	unit, ratio string // ratio is "" where it says nothing
}

// print prints the table.
func (f *field) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "services, of %d nodes\t1\t%d\tunit\tratio\t\n", f.nodes, f.services)
	for _, r := range f.rows() {
		fmt.Fprintf(w, "%s\t%.*f\t%.*f\t%s\t%s\t\n", r.what, digits(r.small), r.small, digits(r.big), r.big, r.unit, r.ratio)
	}
	for _, handler := range []string{"proxy", "rpc"} {
		fmt.Fprintf(w, "memory left of an unknown path, %s\t%.0f\t-\tbytes\t\t\n", handler, f.pathBytes[handler])
	}
	fmt.Fprintf(w, "GET /registry refused, of %d\t%d\t%d\t\t\t\n", f.rounds, f.subjects[0].refused, f.subjects[1].refused)
	fmt.Fprintf(w, "requests for unknown paths\t%.0f\t-\t/s\t\t\n", f.unknownRate)
	return w.Flush()
}

// digits is how many decimals a figure is worth.
func digits(v float64) int {
	if v < 100 {
		return 1
	}
	return 0
}

func (f *field) rows() []row {
	small, big := f.subjects[0], f.subjects[1]
	var rows []row
	for _, load := range []struct {
		what string
		of   func(*subject) []sample
	}{
		{"to one service", func(s *subject) []sample { return s.one }},
		{"to all in turn", func(s *subject) []sample { return s.all }},
	} {
		for _, measure := range measures {
			rows = append(rows, row{
				measure.what + " " + load.what,
				middle(load.of(small), measure.of), middle(load.of(big), measure.of), measure.unit,
				fmt.Sprintf("%.2f", ratio(load.of(small), load.of(big), measure.of)),
			})
		}
	}
	plain := func(what, unit string, of func(*subject) float64) {
		rows = append(rows, row{what, of(small), of(big), unit, ""})
	}
	plain("memory, registered", "MB", func(s *subject) float64 { return megabytes(s.known) })
	plain("memory, all in use", "MB", func(s *subject) float64 { return megabytes(s.resident) })
	plain("CPU time without requests", "ms/s", func(s *subject) float64 { return s.background })
	plain("registering all", "ms", func(s *subject) float64 { return milliseconds(s.registered) })
	plain("the first request to each", "ms", func(s *subject) float64 { return milliseconds(s.used) })
	plain("GET /registry", "ms", func(s *subject) float64 { return milliseconds(s.listed) })
	plain("changed registration to use", "ms", func(s *subject) float64 { return milliseconds(s.changed) })
	return rows
}

// measures are the figures of a sample.
var measures = []struct {
	what, unit string
	of         func(sample) float64
}{
	{"requests", "/s", func(s sample) float64 { return s.rate }},
	{"CPU", "µs", cpu},
	{"p50", "µs", func(s sample) float64 { return float64(s.p50.Microseconds()) }},
	{"p99", "µs", func(s sample) float64 { return float64(s.p99.Microseconds()) }},
}

func cpu(s sample) float64 { return s.cpu }

// overBar is the error that names the measures over their bar.
func (f *field) overBar() error {
	var errs []error
	small, big := f.subjects[0], f.subjects[1]
	for what, samples := range map[string][2][]sample{"one service": {small.one, big.one}, "all services": {small.all, big.all}} {
		if r := ratio(samples[0], samples[1], cpu); r > f.maxRatio {
			errs = append(errs, fmt.Errorf("CPU time of a request to %s: %.2f times that with one registered is over the bar of %.2f", what, r, f.maxRatio))
		}
	}
	for handler, bytes := range f.pathBytes {
		if bytes > f.maxPathBytes {
			errs = append(errs, fmt.Errorf("memory left of an unknown path, %s: %.0f bytes is over the bar of %.0f", handler, bytes, f.maxPathBytes))
		}
	}
	return errors.Join(errs...)
}

// middle is the median of a figure.
func middle(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median of the rounds' ratios.
func ratio(base, samples []sample, of func(sample) float64) float64 {
	values := make([]sample, len(samples))
	for i := range samples {
		values[i] = sample{rate: of(samples[i]) / of(base[i])}
	}
	return middle(values, func(s sample) float64 { return s.rate })
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func megabytes(n int64) float64 { return float64(n) / 1e6 }
