package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

// given are requests that are all there.
func given(messages ...string) *Requests {
	return &Requests{Next: func() ([]byte, error) {
		if len(messages) == 0 {
			return nil, io.EOF
		}
		m := messages[0]
		messages = messages[1:]
		return []byte(m), nil
	}}
}

// receives reads messages and the end of s: one that went well when end is nil.
func receives(t *testing.T, s Stream, end error, want ...string) {
	t.Helper()
	for _, w := range want {
		if got, err := s.Recv(); err != nil || string(got) != w {
			t.Errorf("received %s, %v, want %s", got, err, w)
			return
		}
	}
	got, err := s.Recv()
	if end == nil {
		end = io.EOF
	}
	if err == nil || err.Error() != end.Error() {
		t.Errorf("at the end: %s, %v, want %v", got, err, end)
	}
}

func TestStandardStreams(t *testing.T) {
	p, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	for _, tt := range []struct {
		method string
		send   []string
		want   []string
		end    error
	}{
		{"StreamingOutputCall", []string{`{"responseParameters":[{"size":1},{"size":2}]}`}, []string{`{"payload":{"body":"AA=="}}`, `{"payload":{"body":"AAA="}}`}, nil},
		{"StreamingOutputCall", []string{`{}`}, nil, nil},
		{"StreamingInputCall", []string{`{"payload":{"body":"AAAA"}}`, `{"payload":{"body":"AA=="}}`}, []string{`{"aggregatedPayloadSize":4}`}, nil},
		{"StreamingInputCall", nil, []string{`{}`}, nil},
		{"FullDuplexCall", []string{`{"payload":{"body":"AA=="}}`, `{}`}, []string{`{"payload":{"body":"AA=="}}`, `{}`}, nil},
		{"UnaryCall", []string{`{"responseSize":1}`}, []string{`{"payload":{"body":"AA=="},"username":"a deadline"}`}, nil},
		{"StreamingOutputCall", []string{`{"responseParameters":[{"size":1}],"responseStatus":{"code":10,"message":"late"}}`}, []string{`{"payload":{"body":"AA=="}}`},
			&ServiceError{Detail: "late"}},
	} {
		s, err := c.Stream(within(t), p.node, Call{Service: "x", Method: "TestService." + tt.method}, given(tt.send...))
		if err != nil {
			t.Errorf("%s %v: %v", tt.method, tt.send, err)
			continue
		}
		receives(t, s, tt.end, tt.want...)
		s.Close()
	}
}

func TestStreamRefusesRequests(t *testing.T) {
	p, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	broken := errors.New("the line went dead")
	for name, tt := range map[string]struct {
		method   string
		requests *Requests
		part     string
	}{
		"nonsense":             {"FullDuplexCall", given(`{"nothing":1}`), "unknown field"},
		"nonsense later":       {"FullDuplexCall", given(`{}`, `{`), "malformed JSON"},
		"two for one":          {"UnaryCall", given(`{}`, `{}`), "takes one message"},
		"two for one, streams": {"StreamingOutputCall", given(`{}`, `{}`), "takes one message"},
		"a broken caller":      {"StreamingInputCall", &Requests{Next: func() ([]byte, error) { return nil, broken }}, broken.Error()},
		"an unknown method":    {"Nothing", given(), "no method"},
	} {
		s, err := c.Stream(within(t), p.node, Call{Service: "x", Method: "TestService." + tt.method}, tt.requests)
		for err == nil {
			_, err = s.Recv()
		}
		if s != nil {
			s.Close()
		}
		if !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%s: %v, want %q", name, err, tt.part)
		}
	}
}

// TestStreamFull: a caller that cannot tell its last message is told when the
// method takes no more.
func TestStreamFull(t *testing.T) {
	p, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	full := make(chan bool)
	requests := given(`{"responseParameters":[{"size":1}]}`, `{}`)
	requests.Full = func() { close(full) }
	s, err := c.Stream(within(t), p.node, Call{Service: "x", Method: "TestService.StreamingOutputCall"}, requests)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	receives(t, s, nil, `{"payload":{"body":"AA=="}}`)
	<-full
}

// TestStreamBackPressure: what nobody reads is not asked for.
func TestStreamBackPressure(t *testing.T) {
	p, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	const size, most = 64 << 10, 64
	message := []byte(`{"payload":{"body":"` + strings.Repeat("A", size) + `"}}`)
	var asked atomic.Int64
	s, err := c.Stream(within(t), p.node, Call{Service: "x", Method: "TestService.FullDuplexCall"}, &Requests{Next: func() ([]byte, error) {
		if asked.Add(1) > most {
			return nil, io.EOF
		}
		return message, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// It is stuck when nothing was asked for in a while.
	var stuck int64
	for still := 0; still < 10; still++ {
		time.Sleep(30 * time.Millisecond)
		if now := asked.Load(); now != stuck {
			stuck, still = now, 0
		}
	}
	if stuck > most/2 {
		t.Errorf("%d messages of %d KiB were asked for, and none was read", stuck, size>>10)
	}
	for read := 0; ; read++ {
		_, err := s.Recv()
		if errors.Is(err, io.EOF) && read == most {
			break
		}
		if err != nil {
			t.Fatalf("message %d: %v", read, err)
		}
	}
}

func TestStreamToOtherNodes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", JSON)
		if bytes.Contains(body, []byte("fail")) {
			fmt.Fprint(w, `{"error":"no"}`)
			return
		}
		fmt.Fprintf(w, `{"result":%q}`, body)
	}))
	defer server.Close()
	n := node(t, server.Listener.Addr().String(), nil)
	c := newClient(t, Options{})
	s, err := c.Stream(within(t), n, Call{Service: "x", Method: "A.B"}, given(`{"n": 1}`))
	if err != nil {
		t.Fatal(err)
	}
	receives(t, s, nil, `"{\"method\":\"A.B\",\"params\":[{\"n\":1}],\"id\":0}"`)
	s, err = c.Stream(within(t), n, Call{Service: "x", Method: "A.B"}, given())
	if err != nil {
		t.Fatal(err)
	}
	receives(t, s, nil, `"{\"method\":\"A.B\",\"params\":[{}],\"id\":0}"`)
	if _, err = c.Stream(within(t), n, Call{Service: "x", Method: "A.B"}, given(`"fail"`)); err == nil || err.Error() != "no" {
		t.Errorf("an error of the service: %v", err)
	}
	s, err = c.Stream(within(t), n, Call{Service: "x", Method: "A.B"}, given(`1`, `2`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Recv(); err != nil {
		t.Error(err)
	}
	var refusal *httpmsg.Error
	if _, err = s.Recv(); !errors.As(err, &refusal) || refusal.Status != http.StatusNotImplemented {
		t.Errorf("a second message: %v", err)
	}
}

// TestStreamKeepsTheMessage: a message that a dead node did not get is there
// for the next one.
func TestStreamKeepsTheMessage(t *testing.T) {
	server := httptest.NewServer(nil)
	dead := node(t, server.Listener.Addr().String(), nil)
	server.Close()
	c := newClient(t, Options{})
	requests := given(`{"n":1}`)
	for range 2 {
		if _, err := c.Stream(within(t), dead, Call{Service: "x", Method: "A.B"}, requests); !NotSent(err) {
			t.Fatalf("a dead node: %v", err)
		}
	}
	if m, err := requests.next(); err != nil || string(m) != `{"n":1}` {
		t.Errorf("the message: %q, %v", m, err)
	}
	grpc := standardNode(t, dead.Addr, "1")
	requests = given(`{"n":1}`)
	if _, err := c.Stream(within(t), grpc, Call{Service: "x", Method: "A.B"}, requests); !NotSent(err) {
		t.Fatalf("a dead gRPC node: %v", err)
	}
	if m, err := requests.next(); err != nil || string(m) != `{"n":1}` {
		t.Errorf("the message: %q, %v", m, err)
	}
}
