//go:build unix

package e2e

import (
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// linkFault is a way in which the network between a sidecar and its message
// engine fails, and how that ends.
type linkFault struct {
	begin, end func(*testserver.Relay)
	silent     bool // nothing can be published meanwhile
}

func linkFaults() map[string]linkFault {
	type relay = testserver.Relay
	return map[string]linkFault{
		"both ways":                {(*relay).Cut, (*relay).Heal, true},
		"both ways, and forgotten": {(*relay).Cut, (*relay).Forget, true},
		"to the engine":            {(*relay).CutToServer, (*relay).Heal, true},
		"from the engine":          {(*relay).CutToClient, (*relay).Heal, true},
		"reset":                    {(*relay).Reset, (*relay).Reset, false},
		"slow":                     {func(r *relay) { r.Slow(100*time.Millisecond, 40<<10) }, (*relay).Heal, false},
	}
}
