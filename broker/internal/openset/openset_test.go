package openset_test

import (
	"errors"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/openset"
)

type ender struct{ _ int }

func (*ender) End() {}

func TestSet(t *testing.T) {
	var s openset.Set
	a, b := &ender{}, &ender{}
	for _, e := range []*ender{a, b} {
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	s.Drop(a)
	if s.Closed() {
		t.Error("closed before Close")
	}
	all, first := s.Close()
	if !first || len(all) != 1 || all[0] != b {
		t.Errorf("Close: %v, %v", all, first)
	}
	if all, first := s.Close(); first || all != nil {
		t.Errorf("Close again: %v, %v", all, first)
	}
	if err := s.Add(a); !errors.Is(err, broker.ErrClosed) || !s.Closed() {
		t.Errorf("Add after Close: %v", err)
	}
}
