package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// bar is a promise about the measurements.
type bar struct {
	what    string
	limit   float64
	atLeast bool // else at most
	aim     float64
	unit    string
	// rows are those that value needs.
	rows  []string
	value func(results map[string]results) float64
}

// against is a hop's ratio to another in a row.
func against(row, hop, base string, of func(sample) float64) func(map[string]results) float64 {
	return func(r map[string]results) float64 { return ratio(r[row][hop], r[row][base], of) }
}

// added is the ratio of what two hops add to the median latency without a hop.
func added(row, hop, base string) func(map[string]results) float64 {
	return func(r map[string]results) float64 {
		var values []float64
		for i, none := range r[row][direct] {
			values = append(values, (p50(r[row][hop][i])-p50(none))/(p50(r[row][base][i])-p50(none)))
		}
		return middle(values)
	}
}

// growth is how much more memory a hop takes in one row than in another, in MB.
func growth(hop, row, from string) func(map[string]results) float64 {
	return func(r map[string]results) float64 { return median(r[row][hop], peak) - median(r[from][hop], peak) }
}

// The growth of memory is held against what 64 bodies of 1 MiB would take,
// 67 MB: a hop that passes pieces on needs a small part of that.
var bars = []bar{
	{"proxy, 64 connections: CPU a request, to HAProxy's", 1.6, false, 1.3, "×", []string{"small-64"}, against("small-64", proxy, haproxy, cpu)},
	{"proxy, 64 connections: requests/s, to HAProxy's", 0.7, true, 0.85, "×", []string{"small-64"}, against("small-64", proxy, haproxy, rate)},
	{"proxy, 64 connections: requests/s, to ReverseProxy's", 3, true, 0, "×", []string{"small-64"}, against("small-64", proxy, reverse, rate)},
	{"proxy, 64 connections: p99, to HAProxy's", 2, false, 0, "×", []string{"small-64"}, against("small-64", proxy, haproxy, p99)},
	{"RPC to JSON-RPC, 64 connections: CPU a request, to HAProxy's", 2, false, 1.6, "×", []string{"small-64"}, against("small-64", jsonRPC, haproxy, cpu)},
	{"RPC to mucp, 64 connections: CPU a request, to HAProxy's", 2, false, 1.6, "×", []string{"small-64"}, against("small-64", mucp, haproxy, cpu)},
	{"proxy, 1 connection: added median latency, to HAProxy's", 2, false, 0, "×", []string{"small-1"}, added("small-1", proxy, haproxy)},
	{"proxy, answers of 1 MiB: MB/s, to HAProxy's", 0.8, true, 0, "×", []string{"1MiB"}, against("1MiB", proxy, haproxy, rate)},
	{"proxy, uploads of 1 MiB: MB/s, to HAProxy's", 0.8, true, 0, "×", []string{"1MiB-up"}, against("1MiB-up", proxy, haproxy, rate)},
	{"proxy, answers of 1 MiB: peak memory over that at 1 KiB", 10, false, 0, " MB", []string{"1KiB", "1MiB"}, growth(proxy, "1MiB", "1KiB")},
	{"proxy, uploads of 1 MiB: peak memory over answers of 1 KiB", 10, false, 0, " MB", []string{"1KiB", "1MiB-up"}, growth(proxy, "1MiB-up", "1KiB")},
}

// printBars holds the measurements against the bars, and returns how many are
// not met. One whose rows were not measured is left out.
func printBars(out io.Writer, measured map[string]results) (unmet int, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "bars\tmeasured\tbar\taim\t")
	for _, b := range bars {
		if !b.measured(measured) {
			continue
		}
		value := b.value(measured)
		verdict := "met"
		if !b.met(value) {
			verdict = "not met"
			unmet++
		}
		bound, aim := "at most", ""
		if b.atLeast {
			bound = "at least"
		}
		if b.aim > 0 {
			aim = fmt.Sprintf("%.2f%s", b.aim, b.unit)
		}
		fmt.Fprintf(w, "%s\t%.2f%s\t%s %.2f%s\t%s\t%s\n", b.what, value, b.unit, bound, b.limit, b.unit, aim, verdict)
	}
	return unmet, w.Flush()
}

func (b bar) measured(rows map[string]results) bool {
	for _, name := range b.rows {
		if rows[name] == nil {
			return false
		}
	}
	return true
}

// met is false for a value that is no number.
func (b bar) met(value float64) bool {
	if b.atLeast {
		return value >= b.limit
	}
	return value <= b.limit
}
