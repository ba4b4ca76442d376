package kubernetes

import (
	"errors"
	"testing"

	"github.com/micro/sidecar/internal/picture"
)

func FuzzTake(f *testing.F) {
	for _, s := range []string{
		`{"type":"ADDED","object":{"metadata":{"name":"s","namespace":"n","resourceVersion":"1","labels":{"kubernetes.io/service-name":"a"}},"ports":[{"port":1}],"endpoints":[{"addresses":["10.0.0.1"]}]}}`,
		`{"type":"DELETED","object":{}}`, `{"type":"ERROR","object":{"code":410}}`, `{"type":"BOOKMARK","object":null}`, `null`, `[]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p := picture.New()
		m := newModel(p, false)
		m.replaceServices([]*service{{objectMeta: objectMeta{Name: "a", Namespace: "n"}}})
		m.replaceSlices(nil)
		slices := kind[*endpointSlice]{set: m.setSlice}
		if _, err := slices.take(line); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		services := kind[*service]{set: m.setService}
		if _, err := services.take(line); err != nil && errors.Is(err, errExpired) && len(line) < 10 {
			t.Error("out of nothing")
		}
		for _, name := range p.Names() {
			versions, err := p.Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range versions {
				for _, n := range v.Nodes {
					if n.ID == "" || n.Address == "" || n.Port < 1 || n.Port > 65535 {
						t.Errorf("%+v", n)
					}
				}
			}
		}
	})
}
