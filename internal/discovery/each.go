package discovery

import "iter"

// Known yields the services in use as they are now, in no order. It takes no
// lock.
func (d *Discovery) Known() iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		d.known.Range(func(_, e any) bool {
			s := e.(*entry).service.Load()
			return s == nil || yield(s)
		})
	}
}
