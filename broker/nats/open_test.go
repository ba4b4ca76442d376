package nats_test

import (
	"strings"
	"testing"

	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engineurl"
)

func TestCheckAddress(t *testing.T) {
	for address, want := range map[string]string{
		"h:1,[::1]:2":                          "",
		"tls://u:p@h?server_name=x":            "",
		"h?bucket=x&replicas=3&layout=gomicro": "", // the registry's
		"h?tokn=x":                             "did you mean token?",
		"http://h":                             "expected nats or tls",
	} {
		u, err := engineurl.Parse("nats", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := nats.CheckAddress(u); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if err := nats.CheckAddress(nil); err != nil {
		t.Errorf("no address: %v", err)
	}
}
