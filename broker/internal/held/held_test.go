package held_test

import (
	"errors"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/held"
)

func TestReady(t *testing.T) {
	var r held.Ready
	a, b, c := new(broker.Held), new(broker.Held), new(broker.Held)
	if h, err := r.Take(); h != nil || err != nil || r.Any() {
		t.Errorf("of nothing: %v, %v", h, err)
	}
	for _, h := range []*broker.Held{a, b, c} {
		r.Add(h)
	}
	r.Drop(b)
	r.Drop(b)
	if r.Len() != 2 || r.Has(b) || !r.Has(c) {
		t.Errorf("%d are left", r.Len())
	}
	if h, err := r.Take(); h != a || err != nil {
		t.Errorf("the first: %v, %v", h, err)
	}
	r.Lose()
	if h, ok := r.Next(); ok || !r.Any() {
		t.Errorf("what was lost is given out: %v", h)
	}
	r.Add(b) // of the next turn
	if h, err := r.Take(); h != nil || !errors.Is(err, broker.ErrLapsed) {
		t.Errorf("a lost turn: %v, %v", h, err)
	}
	if h, ok := r.Next(); h != b || !ok {
		t.Errorf("of the next turn: %v", h)
	}
	r.Add(c)
	if all := r.Clear(); len(all) != 1 || all[0] != c || r.Any() {
		t.Errorf("cleared: %v", all)
	}
}
