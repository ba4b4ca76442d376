package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

func TestRenewalIsNoEvent(t *testing.T) {
	r := open(t, testserver.Etcd(t).Addr)
	w := follow(t, r)
	for range 5 {
		register(t, r, service("same", "n"), time.Minute)
		register(t, r, service("forever", "n"), 0)
	}
	register(t, r, service("short", "n"), time.Second) // less than etcd grants
	before, err := r.client.Get(t.Context(), r.prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	register(t, r, service("short", "n"), time.Second)
	register(t, r, service("end", "n"), 0)
	w.wait(t, "the last one", "end")
	if told := w.forget(); len(told) > 0 {
		t.Errorf("and then %q", told)
	}
	after, err := r.client.Get(t.Context(), r.prefix, clientv3.WithPrefix())
	if err != nil || after.Header.Revision != before.Header.Revision+1 {
		t.Errorf("revision %d, then %d: renewals were written", before.Header.Revision, after.Header.Revision)
	}
}

// What somebody else has removed is there again after the next renewal, and
// what lost its lease is, too.
func TestLostRegistration(t *testing.T) {
	r := open(t, testserver.Etcd(t).Addr)
	at := r.prefix + key("svc", "n")
	w := follow(t, r)
	for what, lose := range map[string]func() error{
		"removed": func() error { _, err := r.client.Delete(t.Context(), at); return err },
		"lease revoked": func() error {
			have, err := r.client.Get(t.Context(), at)
			if err == nil {
				_, err = r.client.Revoke(t.Context(), clientv3.LeaseID(have.Kvs[0].Lease))
			}
			return err
		},
		"overwritten": func() error { _, err := r.client.Put(t.Context(), at, "{}"); return err },
	} {
		register(t, r, service("svc", "n"), time.Minute)
		w.wait(t, "registered", "svc")
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		w.wait(t, what, "svc")
		if _, err := r.Get(bounded30(t), "svc"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: Get: %v", what, err)
		}
		register(t, r, service("svc", "n"), time.Minute)
		w.wait(t, "registered again", "svc")
		have, err := r.client.Get(t.Context(), at)
		if err != nil || have.Kvs[0].Lease == 0 {
			t.Errorf("%s: without a lease: %v, %v", what, have, err)
		}
		if err := r.Deregister(bounded30(t), service("svc", "n")); err != nil {
			t.Fatal(err)
		}
		w.wait(t, "removed", "svc")
		w.forget()
	}
}

func TestNonsense(t *testing.T) {
	var out testserver.Output
	s := testserver.Etcd(t)
	r := open(t, s.Addr)
	r.log = slog.New(slog.NewTextHandler(&out, nil))
	r.odd = complain.New(r.log)
	w := follow(t, r)
	node := func(address string) string {
		return fmt.Sprintf(`{"name":"svc","nodes":[{"id":"n","address":%q}]}`, address)
	}
	for at, value := range map[string]string{
		"svc/a": "", "svc/b": "{", "svc/c": "null", "svc/d": "[]", "svc/e": `{"name":"svc"}`, "svc/f": `{"name":"svc","nodes":[null]}`,
		"svc/g": `{"name":"other","nodes":[{"id":"g","address":"a:1"}]}`, "svc/n/m": node("a:1"), "svc": node("a:1"), "": node("a:1"),
		"p0/n": strings.Replace(node("a:0"), "svc", "p0", 1), "p7/n": strings.Replace(node("a:70000"), "svc", "p7", 1),
		"none/n": strings.Replace(node(""), "svc", "none", 1), "blank/n": strings.Replace(node("a b:1"), "svc", "blank", 1),
		"big/n":       `{"name":"big","nodes":[{"id":"n","address":"a:1"}],"version":"` + strings.Repeat("v", 1<<20) + `"}`,
		"micro--zz/n": node("a:1"), "svc/micro--zz-zz": node("a:1"),
	} {
		if _, err := r.client.Put(t.Context(), r.prefix+at, value); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 { // a page of these is larger than an answer may be
		if _, err := r.client.Put(t.Context(), fmt.Sprint(r.prefix, "svc/big", i), strings.Repeat("x", 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	register(t, r, service("svc", "good"), 0)
	w.wait(t, "the good one", "svc")
	have, err := r.Get(bounded30(t), "svc")
	if err != nil || len(have) != 1 || len(have[0].Nodes) != 1 || have[0].Nodes[0].ID != "good" {
		t.Errorf("Get: %+v, %v", have, err)
	}
	if names, err := r.List(bounded30(t)); err != nil || !slices.Equal(names, []string{"svc"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if n := strings.Count(out.String(), "passed over"); n != 1 {
		t.Errorf("%d lines of log:\n%.1000s", n, out.String())
	}
}

// An etcd that takes values larger than an answer may be: they are passed over,
// by the watch as well.
func TestHugeValues(t *testing.T) {
	var out testserver.Output
	s := testserver.Etcd(t, testserver.EtcdOptions{Args: []string{"--max-request-bytes", fmt.Sprint(40 << 20)}})
	r := open(t, s.Addr)
	r.odd = complain.New(slog.New(slog.NewTextHandler(&out, nil)))
	writer, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Addr}, MaxCallSendMsgSize: 40 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	put := func(at string, size int) {
		t.Helper()
		if _, err := writer.Put(bounded30(t), r.prefix+at, strings.Repeat("x", size)); err != nil {
			t.Fatal(err)
		}
	}
	register(t, r, service("svc", "a"), 0)
	put("svc/b", 3<<20)
	put("svc/c", maxAnswer+1)
	put("svc/d", maxAnswer+1)
	put("svc/e", 3<<20)
	register(t, r, service("svc", "f"), 0)
	read := func(want string) {
		t.Helper()
		have, err := r.Get(bounded30(t), "svc")
		if err != nil || len(have) != 1 {
			t.Fatalf("Get: %+v, %v", have, err)
		}
		ids := ""
		for _, n := range have[0].Nodes {
			ids += n.ID
		}
		if ids != want {
			t.Errorf("Get: nodes %s, want %s", ids, want)
		}
		if names, err := r.List(bounded30(t)); err != nil || !slices.Equal(names, []string{"svc"}) {
			t.Errorf("List: %q, %v", names, err)
		}
	}
	read("af")
	w := follow(t, r)
	put("svc/g", maxAnswer+1)
	w.next(t) // of that, or that anything may have changed
	register(t, r, service("svc", "h"), 0)
	w.wait(t, "what came after the huge one", "svc")
	read("afh")
	if n := strings.Count(out.String(), "passed over"); n != 1 {
		t.Errorf("%d lines of log:\n%.1000s", n, out.String())
	}
}

// A service of more nodes than a page holds is read all the same, as it was at
// one time.
func TestManyPages(t *testing.T) {
	r := open(t, testserver.Etcd(t).Addr)
	s := registry.Service{Name: "crowd", Version: "1"}
	for i := range pageSize + 1 {
		s.Nodes = append(s.Nodes, registry.Node{ID: fmt.Sprintf("n%05d", i), Address: "127.0.0.1", Port: 1 + i})
	}
	register(t, r, s, 0)
	have, err := r.Get(bounded30(t), "crowd")
	if err != nil || len(have) != 1 || len(have[0].Nodes) != len(s.Nodes) {
		t.Fatalf("%d services, %v", len(have), err)
	}
}

func TestRestart(t *testing.T) {
	s := testserver.Etcd(t)
	r := open(t, s.Addr)
	register(t, r, service("svc", "n"), time.Minute)
	w := follow(t, r)
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.Get(ctx, "svc"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get from a stopped server: %v", err)
	}
	for ctx := bounded30(t); ; { // its client may be about to find out
		err := r.Ping(short(t))
		if err != nil && strings.Contains(err.Error(), "connection refused") {
			break
		}
		if err == nil || ctx.Err() != nil {
			t.Errorf("Ping of a stopped server: %v, want the reason", err)
			break
		}
	}
	s.Start()
	w.wait(t, "etcd is back", "")
	if _, err := r.Get(bounded30(t), "svc"); err != nil {
		t.Errorf("Get after the restart: %v", err)
	}
	register(t, r, service("after", "n"), time.Minute)
	w.wait(t, "a change after the restart", "after")
}

// A server that comes back empty has fewer changes behind it than the watch
// has seen. With a client that merely goes on where it was, nothing would be
// heard until it has as many.
func TestEmptyAfterRestart(t *testing.T) {
	s := testserver.Etcd(t)
	r := open(t, s.Addr)
	for i := range 50 {
		register(t, r, service(fmt.Sprint("svc", i), "n"), time.Minute)
	}
	w := follow(t, r)
	s.Stop()
	s.Wipe()
	s.Start()
	w.wait(t, "etcd is back", "")
	if _, err := r.Get(bounded30(t), "svc1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	register(t, r, service("svc1", "n"), time.Minute) // the lease it had is gone, too
	w.wait(t, "a registration in the new history", "svc1")
	if _, err := r.Get(bounded30(t), "svc1"); err != nil {
		t.Errorf("Get: %v", err)
	}
}

// A watch that was away while what it missed was compacted begins anew.
func TestCompaction(t *testing.T) {
	s := testserver.Etcd(t)
	r, other := open(t, s.Addr), open(t, s.Addr)
	w := follow(t, r)
	register(t, other, service("svc", "n"), time.Minute)
	w.wait(t, "a change", "svc")
	s.Stop()
	s.Start()
	head, err := other.client.Get(bounded30(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		register(t, other, service(fmt.Sprint("svc", i), "n"), time.Minute)
	}
	if _, err := other.client.Compact(bounded30(t), head.Header.Revision+3); err != nil {
		t.Fatal(err)
	}
	w.wait(t, "it is live again", "")
	register(t, other, service("last", "n"), time.Minute)
	w.wait(t, "a change after that", "last")
}

// TestBrokenProgress: each way in which a watch may go wrong without a word.
func TestBrokenProgress(t *testing.T) {
	header := func(cluster uint64, revision int64) clientv3.WatchResponse {
		a := clientv3.WatchResponse{}
		a.Header = &pb.ResponseHeader{ClusterId: cluster, Revision: revision}
		return a
	}
	w := progress{cluster: 1, revision: 10}
	if err := w.take(header(1, 10)); err != nil || !w.answered {
		t.Errorf("the same: %v", err)
	}
	if err := w.take(header(1, 12)); err != nil || w.revision != 12 {
		t.Errorf("later: %v", err)
	}
	if err := w.take(header(1, 11)); !errors.Is(err, errReplaced) {
		t.Errorf("earlier: %v", err)
	}
	if err := w.take(header(2, 13)); !errors.Is(err, errReplaced) {
		t.Errorf("another cluster: %v", err)
	}
	compacted := header(1, 13)
	compacted.CompactRevision = 13
	if err := w.take(compacted); err == nil {
		t.Error("compacted: no error")
	}
}
