package registrytest

import (
	"slices"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

// gone polls until the node is gone and says when that was. Engines look for
// what has expired on clocks of their own, so there is nothing to wait for
// but the answer of Get.
func (s *suite) gone(t *testing.T, name, id string) time.Time {
	t.Helper()
	deadline := time.Now().Add(s.MinTTL + s.ExpirySlack + patience)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if !slices.Contains(ids(s.get(t, name)), id) {
			return time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q is still a node of %q long after its time to live", id, name)
		}
	}
	panic("unreachable: the ticker does not end")
}

func (s *suite) checkLifetime(t *testing.T, registered, gone time.Time) {
	t.Helper()
	if lived := gone.Sub(registered); lived < s.MinTTL {
		t.Errorf("gone after %v, before its time to live of %v was over", lived, s.MinTTL)
	} else if lived > s.MinTTL+s.ExpirySlack {
		t.Errorf("gone after %v, more than %v later than its time to live of %v", lived, s.ExpirySlack, s.MinTTL)
	}
}

func testExpiry(t *testing.T, s *suite) {
	name := s.name("mortal")
	s.register(t, s.service(name, "1", "stays"), 0)
	s.register(t, s.service(name, "1", "long"), time.Hour)
	begun := time.Now()
	s.register(t, s.service(name, "1", "mortal"), s.MinTTL)
	alone := s.service(s.name("alone"), "1", "mortal")
	s.register(t, alone, s.MinTTL)
	s.checkLifetime(t, begun, s.gone(t, name, "mortal"))
	if have := ids(s.get(t, name)); !slices.Equal(have, []string{"long", "stays"}) {
		t.Errorf("nodes after one expired: %q", have)
	}
	s.gone(t, alone.Name, "mortal")
	s.expectGone(t, alone.Name)

	s.register(t, alone, time.Minute) // the dead can be registered again
	s.expect(t, alone.Name, alone)
}

func testRenewal(t *testing.T, s *suite) {
	service := s.service(s.name("renewed"), "1", "n")
	s.register(t, service, s.MinTTL)
	tick := time.NewTicker(s.MinTTL / 4)
	defer tick.Stop()
	renewed := time.Now()
	for range 10 { // two and a half lives
		<-tick.C
		have := s.get(t, service.Name)
		if time.Since(renewed) >= s.MinTTL {
			t.Log("this machine is too busy to renew in time: the node may have expired meanwhile")
		} else if !same(have, []registry.Service{service}) {
			t.Fatalf("while it is renewed: %s", show(have))
		}
		renewed = time.Now()
		if err := s.Register(timeout(t), service, s.MinTTL); err != nil {
			t.Fatalf("renew: %v", err)
		}
	}
	s.checkLifetime(t, renewed, s.gone(t, service.Name, "n"))
}

// testTTLChanges: what the last registration said counts.
func testTTLChanges(t *testing.T, s *suite) {
	name := s.name("changing")
	s.register(t, s.service(name, "1", "toForever"), s.MinTTL)
	s.register(t, s.service(name, "1", "toLong"), s.MinTTL)
	s.register(t, s.service(name, "1", "toShort"), time.Hour)
	s.register(t, s.service(name, "1", "toMortal"), 0)

	s.register(t, s.service(name, "1", "toForever"), 0)
	s.register(t, s.service(name, "1", "toLong"), time.Hour)
	s.register(t, s.service(name, "1", "toShort"), s.MinTTL)
	begun := time.Now()
	s.register(t, s.service(name, "1", "toMortal"), s.MinTTL)
	s.checkLifetime(t, begun, s.gone(t, name, "toMortal"))
	s.gone(t, name, "toShort")
	if have := ids(s.get(t, name)); !slices.Equal(have, []string{"toForever", "toLong"}) {
		t.Errorf("nodes after the two short-lived ones expired: %q", have)
	}
}
