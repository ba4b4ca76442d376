package nats_test

import (
	"fmt"
	"testing"

	"github.com/micro/sidecar/registry"
)

// A service of more nodes than a direct get answers is read all the same.
func TestServiceOfVeryManyNodes(t *testing.T) {
	r := openRegistry(t, openEngine(t, t.TempDir()))
	for _, n := range []int{1024, 1025} {
		s := registry.Service{Name: fmt.Sprint("svc", n), Version: "1"}
		for i := range n {
			s.Nodes = append(s.Nodes, registry.Node{ID: fmt.Sprintf("%s-%04d", s.Name, i), Address: "127.0.0.1", Port: 1 + i})
		}
		if err := r.Register(t.Context(), s, 0); err != nil {
			t.Fatal(err)
		}
		got, err := r.Get(t.Context(), s.Name)
		if err != nil || len(got) != 1 || len(got[0].Nodes) != n {
			t.Fatalf("%d nodes: got %d services, %v", n, len(got), err)
		}
		for i, node := range got[0].Nodes {
			if node.ID != s.Nodes[i].ID || node.Port != s.Nodes[i].Port {
				t.Fatalf("node %d is %+v", i, node)
			}
		}
	}
}

// BenchmarkGet reads one service of ten nodes among few and many.
func BenchmarkGet(b *testing.B) {
	r := openRegistry(b, openEngine(b, b.TempDir()))
	registered := 0
	for _, n := range []int{1, 1000, 5000} {
		for ; registered < n; registered++ {
			s := registry.Service{Name: fmt.Sprint("svc", registered), Version: "1"}
			for i := range 10 {
				s.Nodes = append(s.Nodes, registry.Node{ID: fmt.Sprint(s.Name, "-", i), Address: "127.0.0.1", Port: 1 + i})
			}
			if err := r.Register(b.Context(), s, 0); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprint("services=", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, err := r.Get(b.Context(), fmt.Sprint("svc", i*7919%n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
