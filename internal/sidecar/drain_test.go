package sidecar

import (
	"testing"
	"time"
)

// Nobody goes to an application that was never registered: its sidecar stops at
// once.
func TestNoDrainDelayForTheUnknown(t *testing.T) {
	for _, known := range []bool{false, true} {
		apps := &applications{}
		app := &application{}
		app.announced.Store(known)
		apps.running.Store(&[]*application{app})
		s := &sidecar{cfg: Config{DrainDelay: 200 * time.Millisecond}, apps: apps}
		begun := time.Now()
		if err := s.drainDelay(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begun) >= 200*time.Millisecond; waited != known {
			t.Errorf("registered before: %v, waited: %v", known, waited)
		}
	}
}
