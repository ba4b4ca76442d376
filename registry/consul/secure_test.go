package consul

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

func at(t *testing.T, address string) *Registry {
	t.Helper()
	u, err := engineurl.Parse("consul", address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(u, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// An agent that speaks TLS alone to whoever has a certificate, and lets do
// something whoever has a token.
func TestSecureAgent(t *testing.T) {
	const token = "4b0c1fd6-1f1c-4a5e-9d1e-6a1a8e6b9c11"
	authority := testserver.NewAuthority(t)
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	port := testserver.FreePort(t)
	config, err := json.Marshal(map[string]any{
		"ports": map[string]any{"https": port},
		"tls":   map[string]any{"https": map[string]any{"ca_file": authority.File, "cert_file": cert, "key_file": key, "verify_incoming": true}},
		"acl":   map[string]any{"enabled": true, "default_policy": "deny", "tokens": map[string]any{"initial_management": token, "agent": token}},
	})
	if err != nil {
		t.Fatal(err)
	}
	testserver.Consul(t, testserver.ConsulOptions{Config: string(config), Token: token})

	base := fmt.Sprintf("127.0.0.1:%d?ca_file=%s", port, authority.File)
	pair := "&cert_file=" + url.QueryEscape(cert) + "&key_file=" + url.QueryEscape(key)
	r := at(t, base+pair+"&dc=dc1&token="+token)
	register(t, r, greeter("greeter", "n", 1), time.Minute)
	if have, err := r.Get(t.Context(), "greeter"); err != nil || len(have) != 1 {
		t.Errorf("Get: %+v, %v", have, err)
	}
	if err := at(t, base+"&token="+token).Ping(t.Context()); err == nil {
		t.Error("let in without a certificate")
	}
	if err := at(t, fmt.Sprintf("https://127.0.0.1:%d?token=%s%s", port, token, pair)).Ping(t.Context()); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
	anonymous := at(t, base+pair)
	if err := anonymous.Register(t.Context(), greeter("other", "n", 1), time.Minute); err == nil {
		t.Error("registered without a token")
	}
	if err := at(t, base+pair+"&dc=elsewhere&token="+token).Register(t.Context(), greeter("other", "n", 1), time.Minute); err == nil {
		t.Error("registered in a datacenter that is not there")
	}
}

// What other programs put into Consul is passed over where it is no node.
func TestNonsenseOfOthers(t *testing.T) {
	s := testserver.Consul(t)
	r := open(t, s)
	var out testserver.Output
	r.odd = complain.New(slog.New(slog.NewTextHandler(&out, nil)))
	tags := make([]string, 50_000) // a million, too, but that keeps the agent busy for half a minute
	for i := range tags {
		tags[i] = fmt.Sprint("t", i)
	}
	large := strings.Repeat("x", 5<<20)
	for id, body := range map[string]map[string]any{
		"p0":    {"Port": 0},
		"p7":    {"Port": 70000},
		"minus": {"Port": -1},
		"tags":  {"Port": 80, "Tags": append(tags, "t", "e", "v", "", "t-", "e-zz", "traefik.enable=true")},
		"meta":  {"Port": 81, "Meta": map[string]string{"a": "b"}},
		"a/b c": {"Port": 82},
		"large": {"Port": 83, "Tags": []string{large, "t-" + large, "v=" + large}},
		"blank": {"Port": 84, "Address": "a b"},
		"url":   {"Port": 85, "Address": "http://127.0.0.1"},
		"path":  {"SocketPath": "relative"},
	} {
		body["ID"], body["Name"] = id, "odd"
		if _, err := r.client.Raw().Write("/v1/agent/service/register", body, nil, nil); err != nil {
			t.Logf("the agent refuses %s: %v", id, err)
		}
	}
	ours := greeter("odd", "ours", 1)
	register(t, r, ours, time.Minute)
	if _, err := r.Get(t.Context(), "odd"); err != nil {
		t.Fatal(err)
	}
	if names, err := r.List(t.Context()); err != nil || !slices.Equal(names, []string{"odd"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	have, err := r.Get(t.Context(), "odd")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]registry.Node{}
	for _, v := range have {
		for _, n := range v.Nodes {
			found[n.ID] = n
		}
	}
	if len(found) != 5 || found["large"].Port != 83 || found["ours"].Port != 1 || found["tags"].Port != 80 || found["meta"].Metadata["a"] != "b" || found["a/b c"].Port != 82 {
		t.Errorf("nodes: %+v", found)
	}
	if n := strings.Count(out.String(), "passed over"); n != 1 {
		t.Errorf("%d lines of log:\n%.1000s", n, out.String())
	}
}
