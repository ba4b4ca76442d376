package nats

import (
	"cmp"
	"container/heap"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/micro/sidecar/registry"
)

// entry is one registered node.
type entry struct {
	key      string
	revision uint64
	written  time.Time        // the deadline as a time of day, as it is in the value
	deadline time.Time        // the same, on a clock that nobody sets; zero: none
	service  registry.Service // with this one node
	index    int              // in deadlines
}

func (e *entry) expired(now time.Time) bool { return !e.deadline.IsZero() && !now.Before(e.deadline) }

// group makes what Get answers of the entries of one service: one Service a
// version, described as it was by the latest registration. What is returned
// shares no map or slice with the entries but the endpoints' values, which
// nobody changes.
func group(entries []*entry, now time.Time) []registry.Service {
	latest := slices.SortedFunc(slices.Values(entries), func(a, b *entry) int { return cmp.Compare(b.revision, a.revision) })
	at := make(map[string]int)
	services := []registry.Service{}
	for _, e := range latest {
		if e.expired(now) {
			continue
		}
		n := e.service.Nodes[0]
		n.Metadata = maps.Clone(n.Metadata)
		i, there := at[e.service.Version]
		if !there {
			i = len(services)
			at[e.service.Version] = i
			s := e.service
			s.Metadata, s.Endpoints, s.Nodes = maps.Clone(s.Metadata), slices.Clone(s.Endpoints), nil
			services = append(services, s)
		}
		services[i].Nodes = append(services[i].Nodes, n)
	}
	registry.Sort(services)
	return services
}

// view is what a watch knows: all entries, and what it has reported.
type view struct {
	byKey    map[string]*entry
	services map[string]map[string]*entry // by name and key
	reported map[string][]registry.Service
	due      deadlines
}

func newView() *view {
	return &view{
		byKey:    make(map[string]*entry),
		services: make(map[string]map[string]*entry),
		reported: make(map[string][]registry.Service),
	}
}

// put adds or replaces an entry and returns the name of its service.
func (v *view) put(e *entry) string {
	v.remove(e.key)
	v.byKey[e.key] = e
	name := e.service.Name
	if v.services[name] == nil {
		v.services[name] = make(map[string]*entry)
	}
	v.services[name][e.key] = e
	if !e.deadline.IsZero() {
		heap.Push(&v.due, e)
	}
	return name
}

// remove drops an entry and returns the name of its service, "" when there was none.
func (v *view) remove(key string) string {
	e, there := v.byKey[key]
	if !there {
		return ""
	}
	delete(v.byKey, key)
	name := e.service.Name
	delete(v.services[name], key)
	if len(v.services[name]) == 0 {
		delete(v.services, name)
	}
	if !e.deadline.IsZero() {
		heap.Remove(&v.due, e.index)
	}
	return name
}

// expire drops what is past its deadline and returns it.
func (v *view) expire(now time.Time) (over []*entry) {
	for len(v.due) > 0 && v.due[0].expired(now) {
		e := v.due[0]
		v.remove(e.key)
		over = append(over, e)
	}
	return over
}

// event returns what is to be reported about a service; false when nothing but
// a deadline has changed.
func (v *view) event(name string, now time.Time) (registry.Event, bool) {
	services := group(slices.Collect(maps.Values(v.services[name])), now)
	if reflect.DeepEqual(services, v.reported[name]) || len(services)+len(v.reported[name]) == 0 {
		return registry.Event{}, false
	}
	if v.reported[name] = services; len(services) == 0 {
		delete(v.reported, name)
	}
	return registry.Event{Name: name, Services: group(slices.Collect(maps.Values(v.services[name])), now)}, true
}

// next returns how long until the next deadline, at most an hour.
func (v *view) next(now time.Time) time.Duration {
	if len(v.due) == 0 {
		return time.Hour
	}
	return min(max(v.due[0].deadline.Sub(now), 0)+time.Millisecond, time.Hour)
}

// deadlines is a heap of entries, the next to expire first.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push implements [heap.Interface].
func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.index = len(*d)
	*d = append(*d, e)
}

// Pop implements [heap.Interface].
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return e
}
