package engineurl_test

import (
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/engineurl"
)

func TestPair(t *testing.T) {
	for _, test := range [][]string{
		{"consul", "127.0.0.1:8500", "127.0.0.1:8500"},
		{"etcd", "a:1,b:2", "a:1,b:2"},
		{"consul,static", "", "|"},
		{"consul,static", "127.0.0.1:8500,/x.yaml", "127.0.0.1:8500|/x.yaml"},
		{"embedded,static", ",/x.yaml", "|/x.yaml"},
		{"embedded,static", "static:///x.yaml", "|static:///x.yaml"},
		{"consul,static", "static:///x.yaml,consul://a:1", "consul://a:1|static:///x.yaml"},
		{"etcd,static", "etcd://a:1,b:2,static:///x,y.yaml", "etcd://a:1,b:2|static:///x,y.yaml"},
		{"etcd,consul,static", "static:///x,https://a:1,b:2,http://c:3", "https://a:1,b:2|http://c:3|static:///x"},
		{"consul,static", "127.0.0.1:8500,static:///x", "127.0.0.1:8500|static:///x"},
		{"consul,static", "a:1", "error: 1 addresses for 2 engines"},
		{"consul,static", "consul://a:1,consul://b:1", "error: two addresses for consul"},
		{"consul,static", "http://a,http://b,http://c", "error: more addresses than engines"},
	} {
		have, err := engineurl.Pair(strings.Split(test[0], ","), test[1])
		text := strings.Join(have, "|")
		if err != nil {
			text = "error: " + err.Error()
		}
		if !strings.HasPrefix(text, test[2]) || err == nil && text != test[2] {
			t.Errorf("%s, %q: have %s, want %s", test[0], test[1], text, test[2])
		}
	}
}
