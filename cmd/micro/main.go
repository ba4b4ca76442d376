// Command micro runs a sidecar beside an application, and talks to one.
//
// A micro with a registry, a broker, a way to choose nodes or HTTP middleware of
// your own is a copy of this file in a module of yours, with one more line:
//
//	func main() {
//		sidecar.Main(
//			sidecar.Standard(),
//			sidecar.Registry("mine", openMine),
//		)
//	}
//
// Standard is the visible table of what is built in (standard.go); leave it
// out, and what you name is all there is. docs/plugins.md has the rest.
package main

import "github.com/micro/sidecar"

func main() {
	sidecar.Main(
		sidecar.Standard(),
	)
}
