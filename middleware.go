package sidecar

import "net/http"

// Middleware puts a handler of one's own around all that the sidecar serves, as
// the plug-ins of the 2017 sidecar could: its own paths, RPC and proxied
// requests, on all listeners. Of several, the one that stands first in the
// table is outermost. wrap is called once.
//
// All requests then take the net/http way, which costs more, see
// docs/performance.md. What middleware leaves alone goes on byte for byte; what
// it changes in the request's header, method, URL, Host or body goes on as
// changed. It passes a context on that comes from the request's, and a wrapper
// of the ResponseWriter has an Unwrap method, for which see
// [http.ResponseController]: without it there are no streams and no WebSockets.
func Middleware(wrap func(http.Handler) http.Handler) Plugin {
	return func(t *table) {
		if wrap == nil {
			t.fail("middleware has no function")
			return
		}
		t.drivers.Middleware = append(t.drivers.Middleware, wrap)
	}
}
