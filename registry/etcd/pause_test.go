//go:build unix

package etcd

import (
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// A server that is paused keeps its connections: only its silence tells.
func TestPaused(t *testing.T) {
	s := testserver.Etcd(t)
	r := open(t, s.Addr)
	register(t, r, service("svc", "n"), time.Hour)
	w := follow(t, r)
	s.Pause()
	for deadline := time.Now().Add(30 * time.Second); r.Ping(short(t)) == nil; { // it stops in its own time
		if time.Now().After(deadline) {
			t.Fatal("Ping of a paused server succeeds")
		}
	}
	begun := time.Now()
	if _, err := r.Get(short(t), "svc"); err == nil {
		t.Error("Get from a paused server succeeded")
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("a call of a second took %v", took)
	}
	// Until the watch is given up: a ping of the connection and its answer.
	gone := r.lost(t.Context())
	select {
	case <-gone:
	case <-time.After(60 * time.Second):
		t.Fatal("the connection to a paused server lives on")
	}
	s.Continue()
	w.wait(t, "it is live again", "")
	if _, err := r.Get(bounded30(t), "svc"); err != nil {
		t.Errorf("Get: %v", err)
	}
	register(t, r, service("after", "n"), time.Hour)
	w.wait(t, "a change after that", "after")
}

// Of three members one may be lost: what goes through it is carried over.
func TestMemberLost(t *testing.T) {
	members := testserver.EtcdCluster(t, 3)
	r := open(t, members[0].Addr+","+members[1].Addr+","+members[2].Addr)
	register(t, r, service("svc", "n"), 5*time.Second)
	w := follow(t, r)
	for i, m := range members {
		if i == 2 {
			m.Pause()
		} else {
			m.Stop()
		}
		name := "during" + m.Addr
		register(t, r, service(name, "n"), 5*time.Second)
		for { // whichever way the watch was carried over, it comes to know
			if told := w.next(t); told == name || told == "" {
				break
			}
		}
		if _, err := r.Get(bounded30(t), name); err != nil {
			t.Errorf("Get with a member lost: %v", err)
		}
		w.waitGone(t, r, name) // and what is not renewed ends
		if i == 2 {
			m.Continue()
		} else {
			m.Start()
		}
	}
}
