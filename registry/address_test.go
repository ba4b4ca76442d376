package registry_test

import (
	"strings"
	"testing"

	"github.com/micro/sidecar/registry"
)

func TestCheckNode(t *testing.T) {
	for _, n := range []registry.Node{
		{Address: "127.0.0.1", Port: 1}, {Address: "2001:db8::1", Port: 65535}, {Address: "fe80::1%eth0", Port: 1},
		{Address: "db_1.internal", Port: 80}, {Address: "unix:/run/app.sock"},
	} {
		if err := registry.CheckNode(n); err != nil {
			t.Errorf("%+v: %v", n, err)
		}
	}
	for _, c := range []struct {
		node registry.Node
		want string
	}{
		{registry.Node{Port: 1}, "address"},
		{registry.Node{Address: "a b", Port: 1}, "address"},
		{registry.Node{Address: "http://a", Port: 1}, "address"},
		{registry.Node{Address: "a\r\nHost: b", Port: 1}, "address"},
		{registry.Node{Address: "[::1]", Port: 1}, "address"},
		{registry.Node{Address: strings.Repeat("x", 1<<20), Port: 1}, "address"},
		{registry.Node{Address: "a"}, "port"},
		{registry.Node{Address: "a", Port: -1}, "port"},
		{registry.Node{Address: "a", Port: 70000}, "port"},
		{registry.Node{Address: "unix:relative"}, "unix:/PATH"},
	} {
		if err := registry.CheckNode(c.node); err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
			t.Errorf("%.40q port %d: %.400v, want an error about %s", c.node.Address, c.node.Port, err, c.want)
		}
	}
}
