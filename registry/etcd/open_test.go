package etcd

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
)

func TestConfigure(t *testing.T) {
	for address, want := range map[string]string{
		"h":                             "http://h:2379 /micro/registry/",
		"a:1,b:2":                       "http://a:1 http://b:2 /micro/registry/",
		"etcd://[::1]?insecure=true":    "https://[::1]:2379 /micro/registry/",
		"https://a,b:9?prefix=/x":       "https://a:2379 https://b:9 /x/",
		"http://a?prefix=/x/":           "http://a:2379 /x/",
		"http://a?insecure=true":        "error: parameters of TLS",
		"ftp://a":                       "error: expected etcd, http or https",
		"etcd://a/path":                 "error: expected no path",
		"etcd://user@a":                 "error: expected user:password",
		"etcd://a?prefx=/x":             `error: unknown parameter "prefx" (did you mean prefix?): expected ca_file, cert_file, insecure, key_file, prefix, server_name`,
		"etcd://a?prefix=/":             "error: a prefix of keys",
		"etcd://a?ca_file=/nosuch":      "error: ca_file",
		"etcd://:2379":                  "error: got no host",
		"etcd://u:secret@a?cert_file=x": "error: both or none",
	} {
		u, err := engineurl.Parse("etcd", address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := configure(u)
		have := ""
		if err != nil {
			have = "error: " + err.Error()
		} else {
			have = strings.Join(append(c.endpoints, c.prefix), " ")
		}
		rest, failed := strings.CutPrefix(want, "error: ")
		if failed != (err != nil) || !strings.Contains(have, rest) || strings.Contains(have, "secret") {
			t.Errorf("%s: have %q, want %q", address, have, want)
		}
	}
	t.Setenv("ETCD_USERNAME", "u")
	t.Setenv("ETCD_PASSWORD", "p")
	if c, err := configure(nil); err != nil || c.username != "u" || c.password != "p" || c.endpoints[0] != "http://127.0.0.1:2379" {
		t.Errorf("no address: %+v, %v", c, err)
	}
}

func TestPrefix(t *testing.T) {
	s := testserver.Etcd(t)
	r, other := open(t, s.Addr+"?prefix=/apps/blue"), open(t, s.Addr+"?prefix=/apps/blue/2")
	register(t, r, service("svc", "n"), time.Minute)
	if _, err := r.Get(bounded30(t), "svc"); err != nil {
		t.Errorf("Get: %v", err)
	}
	if names, err := other.List(bounded30(t)); err != nil || len(names) > 0 {
		t.Errorf("another prefix lists %q, %v", names, err)
	}
}

func TestTLS(t *testing.T) {
	authority := testserver.NewAuthority(t)
	s := testserver.Etcd(t, testserver.EtcdOptions{Authority: authority})
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	r := open(t, s.Addr+"?ca_file="+authority.File+"&cert_file="+cert+"&key_file="+key)
	w := follow(t, r)
	register(t, r, service("svc", "n"), time.Minute)
	w.wait(t, "a registration", "svc")
	if err := open(t, "https://"+s.Addr).Ping(short(t)); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
	if err := open(t, s.Addr+"?ca_file="+authority.File).Ping(short(t)); err == nil {
		t.Error("the server asked for no certificate")
	}
}

// A sidecar that is up before its etcd logs in when it is there, and again
// when its login has run out.
func TestPassword(t *testing.T) {
	s := testserver.Etcd(t)
	c := open(t, s.Addr).client
	for what, err := range map[string]error{
		"role":  second(c.RoleAdd(t.Context(), "apps")),
		"users": errors.Join(second(c.UserAdd(t.Context(), "root", "top")), second(c.UserAdd(t.Context(), "micro", "sécret/"))),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	all := clientv3.PermissionType(clientv3.PermReadWrite)
	if err := errors.Join(
		second(c.RoleGrantPermission(t.Context(), "apps", defaultPrefix, clientv3.GetPrefixRangeEnd(defaultPrefix), all)),
		second(c.UserGrantRole(t.Context(), "root", "root")),
		second(c.UserGrantRole(t.Context(), "micro", "apps")),
		second(c.AuthEnable(t.Context())),
	); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	r := open(t, "micro:s%C3%A9cret%2F@"+s.Addr)
	if err := r.Ping(short(t)); err == nil {
		t.Error("Ping of a stopped server succeeded")
	}
	s.Start()
	w := follow(t, r)
	register(t, r, service("svc", "n"), time.Minute)
	w.wait(t, "a registration", "svc")
	register(t, r, service("svc", "n"), time.Minute)
	if names, err := r.List(bounded30(t)); err != nil || len(names) != 1 {
		t.Errorf("List: %q, %v", names, err)
	}
	s.Stop()
	s.Start() // it has forgotten who logged in
	w.wait(t, "it is back", "")
	register(t, r, service("more", "n"), time.Minute)
	w.wait(t, "a change after that", "more")
	if err := r.Deregister(bounded30(t), service("svc", "n")); err != nil {
		t.Error(err)
	}
	err := open(t, "micro:wrong@"+s.Addr).Ping(bounded30(t))
	if err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
	if err := open(t, s.Addr).Ping(bounded30(t)); err == nil {
		t.Error("without a password: no error")
	}
}

func second[T any](_ T, err error) error { return err }

func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOpenSendsNothing(t *testing.T) {
	r, err := Open(nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
