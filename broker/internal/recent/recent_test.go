package recent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/broker"
)

func TestMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Map[string, int]
		if _, ok := m.Get("a"); ok {
			t.Error("an empty map has a value")
		}
		m.Put("a", 1)
		<-time.After(broker.OnceWithin)
		m.Put("b", 2)
		if v, ok := m.Get("a"); !ok || v != 1 {
			t.Errorf("within the window: %d, %v", v, ok)
		}
		m.Put("a", 3)
		if v, _ := m.Get("a"); v != 3 {
			t.Errorf("put again: %d", v)
		}
		for range 2 { // two generations later it has gone
			<-time.After(broker.OnceWithin + time.Second)
			m.Put("c", 4)
		}
		if _, ok := m.Get("a"); ok {
			t.Error("it never forgets")
		}
	})
}

func TestMapIsBounded(t *testing.T) {
	var m Map[int, int]
	for i := range 5 * most {
		m.Put(i, i)
	}
	if n := len(m.now) + len(m.old); n > 2*most {
		t.Errorf("%d entries, want at most %d", n, 2*most)
	}
	if _, ok := m.Get(5*most - 1); !ok {
		t.Error("the last one is forgotten")
	}
}
