package stats

import (
	"slices"
	"sync/atomic"
	"time"
)

// perDecade are the upper ends of a decade's buckets in hundredths of its
// begin: what is read from them is wrong by a tenth or so at most, and they hold
// the round numbers that people set their limits at.
var perDecade = [...]time.Duration{100, 125, 150, 200, 250, 300, 400, 500, 600, 800}

const (
	decades = 7 // from 10 µs to 100 s
	// Buckets is the number of a histogram's buckets. The last one has no end.
	Buckets = decades*len(perDecade) + 2
)

// bounds are the upper ends of the buckets, these included.
var bounds = func() (b [Buckets - 1]time.Duration) {
	hundredth := 100 * time.Nanosecond // of 10 µs
	for i := range b {
		b[i] = hundredth * perDecade[i%len(perDecade)]
		if i%len(perDecade) == len(perDecade)-1 {
			hundredth *= 10
		}
	}
	return b
}()

// Bounds returns the upper ends of all buckets but the last.
func Bounds() []time.Duration { return bounds[:] }

// bucket returns the bucket of d.
func bucket(d time.Duration) int {
	low, high := 0, len(bounds) // a binary search that inlines
	for low < high {
		middle := int(uint(low+high) >> 1)
		if bounds[middle] < d {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// histogram counts durations. It is safe for concurrent use.
type histogram struct {
	buckets [Buckets]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucket(d)].Add(1)
	h.sum.Add(int64(d))
}

// Latencies is a histogram's content.
type Latencies struct {
	Buckets [Buckets]uint64 // not cumulative
	Sum     time.Duration
}

// Count is the number of durations.
func (l *Latencies) Count() (n uint64) {
	for _, b := range l.Buckets {
		n += b
	}
	return n
}

// Quantiles are the usual three, 0 when nothing was measured. In JSON they are
// milliseconds.
type Quantiles struct{ P50, P95, P99 time.Duration }

// Quantiles finds them, as if the durations in a bucket were spread evenly.
func (l *Latencies) Quantiles() Quantiles {
	n := l.Count()
	if n == 0 {
		return Quantiles{}
	}
	return Quantiles{l.quantile(n, 0.50), l.quantile(n, 0.95), l.quantile(n, 0.99)}
}

func (l *Latencies) quantile(count uint64, q float64) time.Duration {
	rank := q * float64(count)
	below := 0.0
	for i, n := range l.Buckets {
		here := float64(n)
		if n == 0 || below+here < rank {
			below += here
			continue
		}
		if i == len(bounds) {
			break
		}
		low := time.Duration(0)
		if i > 0 {
			low = bounds[i-1]
		}
		return low + time.Duration(float64(bounds[i]-low)*(rank-below)/here)
	}
	return slices.Max(bounds[:]) // or more: the last bucket has no end
}
