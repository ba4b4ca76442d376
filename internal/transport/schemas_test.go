package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

// TestSchemasAreAskedForOnce: whoever calls at the same time, and nodes of one
// version, share one look; another version gets its own.
func TestSchemasAreAskedForOnce(t *testing.T) {
	a, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	b := startStandard(t, testserver.ReflectionV1)
	var calls sync.WaitGroup
	for i := range 40 {
		calls.Go(func() {
			n := a.node
			if i%2 == 0 {
				n = b.node
			}
			if _, err := c.Call(within(t), n, Call{Service: "x", Method: "TestService.UnaryCall"}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := a.Looks.Load() + b.Looks.Load(); n != 2 { // the list, and the service
		t.Errorf("40 calls looked %d times", n)
	}
	next := discovery.NewNode(b.node.Node, "2")
	if _, err := c.Call(within(t), next, Call{Service: "x", Method: "TestService.UnaryCall"}); err != nil {
		t.Error(err)
	}
	if n := a.Looks.Load() + b.Looks.Load(); n != 4 {
		t.Errorf("another version: %d looks, want 2 more", n)
	}
}

func TestSchemaOfADeadNode(t *testing.T) {
	s, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	dead := standardNode(t, testserver.DeadAddr(t), "1")
	for range 3 {
		if _, err := c.Call(within(t), dead, Call{Service: "x", Method: "TestService.UnaryCall"}); !NotSent(err) {
			t.Errorf("a dead node: %v", err)
		}
	}
	// Its failure is nobody else's.
	if _, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.UnaryCall"}); err != nil {
		t.Error(err)
	}
}

// versioned is a node of a version, without a server.
func versioned(version, addr string) *discovery.Node {
	return discovery.NewNode(registry.Node{ID: addr, Address: addr, Port: 1, Metadata: map[string]string{"protocol": "grpc", "grpc": "standard"}}, version)
}

func TestSchemasAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s schemas
		defer s.close()
		n := versioned("1", "h")
		key := keyOf(n, "svc", "")
		loads := 0
		var fails error
		load := func() (*schema, error) {
			loads++
			return &schema{services: []string{fmt.Sprint(loads)}}, fails
		}
		ask := func(want string) {
			t.Helper()
			if got, err := s.get(t.Context(), key, load); err != nil || got.services[0] != want {
				t.Errorf("got %v, %v, want %s", got, err, want)
			}
		}
		ask("1")
		time.Sleep(schemaTTL - time.Second)
		ask("1")
		time.Sleep(2 * time.Second)
		ask("2")

		// One that cannot be renewed is used on, and asked for again soon.
		time.Sleep(schemaTTL + time.Second)
		fails = &NodeError{Addr: "h", Err: errors.New("away")}
		ask("2")
		if loads != 3 {
			t.Errorf("%d loads", loads)
		}
		fails = nil
		time.Sleep(schemaRetry + time.Second)
		ask("4")

		// A refusal drops what is old enough to be wrong, and nothing newer.
		refusal := httpmsg.Errorf(404, "no such method")
		if s.renew(n, "svc", refusal) {
			t.Error("a fresh schema was dropped")
		}
		time.Sleep(schemaRetry + time.Second)
		if s.renew(versioned("2", "h"), "svc", refusal) || s.renew(n, "svc", errors.New("x")) || !s.renew(n, "svc", refusal) {
			t.Error("the wrong schema was dropped")
		}
		ask("5")

		// What nobody uses is forgotten.
		time.Sleep(2 * schemaIdle)
		synctest.Wait()
		if len(s.entries) != 0 || s.sweep != nil {
			t.Errorf("%d schemas are left", len(s.entries))
		}
	})
}

func TestSchemaRefusalsAreRememberedBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s schemas
		defer s.close()
		loads := 0
		load := func() (*schema, error) { loads++; return nil, httpmsg.Errorf(501, "no reflection") }
		for range 3 {
			if _, err := s.get(t.Context(), schemaKey{}, load); err == nil {
				t.Error("no error")
			}
		}
		if loads != 1 {
			t.Errorf("%d loads", loads)
		}
		time.Sleep(schemaRetry + time.Second)
		if _, err := s.get(t.Context(), schemaKey{}, load); err == nil || loads != 2 {
			t.Errorf("%d loads, %v", loads, err)
		}
	})
}

// TestSchemaOfAnImpatientCaller: one who asks and has no time left does not
// spoil it for those who wait.
func TestSchemaOfAnImpatientCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s schemas
		defer s.close()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			_, err := s.get(short, schemaKey{}, func() (*schema, error) {
				<-short.Done()
				return nil, &NodeError{Err: short.Err()}
			})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient one: %v", err)
			}
		}()
		synctest.Wait()
		if got, err := s.get(t.Context(), schemaKey{}, func() (*schema, error) { return &schema{}, nil }); err != nil || got == nil {
			t.Errorf("the patient one: %v", err)
		}
		if _, err := s.get(short, schemaKey{symbol: "x"}, func() (*schema, error) { return nil, short.Err() }); err == nil {
			t.Error("no error")
		}
	})
}

func TestSchemasAreBounded(t *testing.T) {
	var s schemas
	defer s.close()
	for i := range 2 * maxSchemas {
		if _, err := s.get(t.Context(), schemaKey{service: fmt.Sprint(i)}, func() (*schema, error) { return &schema{}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.entries) > maxSchemas {
		t.Errorf("%d schemas", len(s.entries))
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = s.get(t.Context(), schemaKey{}, func() (*schema, error) { panic("x") })
	}()
	if _, err := s.get(t.Context(), schemaKey{}, func() (*schema, error) { return &schema{}, nil }); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// TestSchemaOfANewServer: a server of the same version that gets more services
// is looked at again when one is asked for that was not there.
func TestSchemaOfANewServer(t *testing.T) {
	old, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	if _, err := c.Call(within(t), old.node, Call{Service: "x", Method: "Late.Call"}); err == nil {
		t.Fatal("no error")
	}
	for _, e := range c.schemas.entries {
		e.loaded = e.loaded.Add(-2 * schemaRetry) // stands for the time that passes
	}
	late := startStandard(t, testserver.ReflectionV1, func(s *grpc.Server) {
		s.RegisterService(&grpc.ServiceDesc{ServiceName: "new.Late", HandlerType: (*any)(nil), Metadata: "grpc/testing/test.proto"}, nil)
	})
	_, err := c.Call(within(t), late.node, Call{Service: "x", Method: "Late.Call"})
	if err == nil || !strings.Contains(err.Error(), "new.Late") {
		t.Errorf("a service that came later: %v", err)
	}
}
