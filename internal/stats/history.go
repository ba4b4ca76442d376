package stats

import "time"

const (
	// Tick is how often a [Sampler] looks, and the step of the last two minutes.
	Tick = 2 * time.Second
	// hourStep is the step of the last hour.
	hourStep = time.Minute
	// points is how many steps each of them has.
	points = 60
	// rateSteps is how many of the finest steps a present rate is the mean of.
	rateSteps = 5
)

// Span is how far back something goes.
type Span int

// The spans.
const (
	TwoMinutes Span = iota
	Hour
	spans = 2
)

func (s Span) step() time.Duration { return [spans]time.Duration{Tick, hourStep}[s] }

// history is what became of requests in the last two minutes and the last hour.
type history [spans]ring

// ring holds the steps of a span. Most services have few different latencies
// in a step, and most steps no request: it takes memory by what there was.
type ring struct {
	last  int64 // number of the newest step, counted from 1970
	steps [points]*step
}

// step is what happened in one step.
type step struct {
	classes [Classes]uint32
	failed  uint32
	cells   []cell
}

// cell is a bucket that is not empty.
type cell struct {
	bucket uint8
	count  uint32
}

// delta is what happened between two looks.
type delta struct {
	classes [Classes]uint64
	failed  uint64
	buckets [Buckets]uint64
}

func (d *delta) add(o *delta) {
	for i, n := range o.classes {
		d.classes[i] += n
	}
	for i, n := range o.buckets {
		d.buckets[i] += n
	}
	d.failed += o.failed
}

// add notes what happened until now.
func (h *history) add(now time.Time, d *delta) {
	for span := range h {
		h[span].at(number(now, Span(span))).add(d)
	}
}

// number is the number of the step that t is in.
func number(t time.Time, s Span) int64 { return t.UnixNano() / int64(s.step()) }

// at returns the step of that number. A clock that was set back stands still.
func (r *ring) at(number int64) *step {
	r.advance(number)
	i := r.last % points
	if r.steps[i] == nil {
		r.steps[i] = new(step)
	}
	return r.steps[i]
}

// advance forgets what is too old when number is the present step.
func (r *ring) advance(number int64) {
	if number-r.last >= points {
		r.steps = [points]*step{}
		r.last = number
		return
	}
	for r.last < number {
		r.last++
		r.steps[r.last%points] = nil
	}
}

func (s *step) add(d *delta) {
	for i, n := range d.classes {
		s.classes[i] += uint32(n)
	}
	s.failed += uint32(d.failed)
	next := 0 // cells are in the order of buckets
	for b, n := range d.buckets {
		if n == 0 {
			continue
		}
		for next < len(s.cells) && int(s.cells[next].bucket) < b {
			next++
		}
		if next == len(s.cells) || int(s.cells[next].bucket) != b {
			s.cells = append(s.cells, cell{})
			copy(s.cells[next+1:], s.cells[next:])
			s.cells[next] = cell{bucket: uint8(b)}
		}
		s.cells[next].count += uint32(n)
	}
}

func (s *step) latencies(into *Latencies) {
	for _, c := range s.cells {
		into.Buckets[c.bucket] += uint64(c.count)
	}
}

// Series is a span in steps of equal length, oldest first. The last one of the
// hour has just begun.
type Series struct {
	Step time.Duration
	End  time.Time // of the last step
	// Rates are requests a second by class.
	Rates     [Classes][]float64
	Quantiles []Quantiles
}

func (h *history) series(now time.Time, s Span) Series {
	r := &h[s]
	r.advance(number(now, s))
	out := Series{Step: s.step(), End: time.Unix(0, (r.last+1)*int64(s.step())), Quantiles: make([]Quantiles, points)}
	for c := range out.Rates {
		out.Rates[c] = make([]float64, points)
	}
	for i := range points {
		at := r.steps[(r.last+1+int64(i))%points]
		if at == nil {
			continue
		}
		length := s.step()
		if i == points-1 { // as long as it has lasted
			length = min(max(now.Add(Tick/2).Sub(out.End.Add(-length)), Tick), length)
		}
		for c, n := range at.classes {
			out.Rates[c][i] = float64(n) / length.Seconds()
		}
		var l Latencies
		at.latencies(&l)
		out.Quantiles[i] = l.Quantiles()
	}
	return out
}

// Recent sums up what became of requests lately.
type Recent struct {
	Rate   float64 // requests a second, over the last 10 s
	Failed float64 // those of them that failed: 5xx, or no answer
	// Requests and Failures are counted over the span, as are the Quantiles.
	Requests, Failures uint64
	Quantiles
}

func (h *history) recent(now time.Time, s Span) (out Recent) {
	r := &h[s]
	r.advance(number(now, s))
	var l Latencies
	for _, at := range r.steps {
		if at == nil {
			continue
		}
		for _, n := range at.classes {
			out.Requests += uint64(n)
		}
		out.Failures += uint64(at.failed)
		at.latencies(&l)
	}
	out.Quantiles = l.Quantiles()
	fine := &h[TwoMinutes]
	fine.advance(number(now, TwoMinutes))
	for i := range int64(rateSteps) {
		at := fine.steps[(fine.last-i)%points]
		if at == nil {
			continue
		}
		for _, n := range at.classes {
			out.Rate += float64(n) / (rateSteps * Tick).Seconds()
		}
		out.Failed += float64(at.failed) / (rateSteps * Tick).Seconds()
	}
	return out
}
