package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// print prints the table of a row. HAProxy is what the others are held against.
func print(out io.Writer, r row, measured results) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, r.title)
	speed := "requests/s"
	if r.body > 0 {
		speed = "MB/s"
	}
	fmt.Fprintf(w, "hop\t%s\tratio\tCPU µs\tratio\tp50\tratio\tp99\tratio\tallocs\tpeak MB\tratio\t\n", speed)
	base := measured[haproxy]
	for _, h := range r.hops {
		own := measured[h.name]
		value := median(own, rate)
		if r.body > 0 {
			value *= float64(r.body) / 1e6
		}
		counted := "-"
		if n := median(own, allocs); n >= 0 {
			counted = fmt.Sprintf("%.1f", n)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.1f\t%.2f\t%.0fµs\t%.2f\t%.0fµs\t%.2f\t%s\t%.0f\t%.2f\t\n", h.name,
			value, ratio(own, base, rate), median(own, cpu), ratio(own, base, cpu),
			median(own, p50), ratio(own, base, p50), median(own, p99), ratio(own, base, p99),
			counted, median(own, peak), ratio(own, base, peak))
	}
	fmt.Fprintln(w)
	return w.Flush()
}
