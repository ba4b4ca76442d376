package transport

import (
	"errors"
	"testing"
)

func TestProtorpcAnswers(t *testing.T) {
	answer := ""
	w := startWire(t, func(string, string) (string, bool) { return answer, true })
	c, n := newClient(t, Options{}), node(t, w.addr, nil)
	call := Call{Service: "svc", Method: "Say.Hello", ContentType: "application/proto", Body: []byte("arg")}
	frames := func(fs ...string) string {
		var b []byte
		for _, f := range fs {
			b = appendFrame(b, []byte(f))
		}
		return string(b)
	}
	const header = "\x0a\x09Say.Hello\x11\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, good := range []string{frames(header, "result"), frames("", "result"), frames(header+"\x1a\x00", "result"), frames(header+"\x28\x07", "result")} {
		answer = ok("application/x-protobuf; proto=x", good)
		if got, err := c.Call(t.Context(), n, call); err != nil || string(got) != "result" {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, refused := range []string{frames(header+"\x1a\x04oops", ""), frames(header + "\x1a\x04oops")} {
		answer = ok(Protobuf, refused)
		var got *ServiceError
		if _, err := c.Call(t.Context(), n, call); !errors.As(err, &got) || *got != (ServiceError{"svc", 500, "oops", "Internal Server Error"}) {
			t.Errorf("%q: %v", refused, err)
		}
	}
	for _, bad := range []string{
		"", "\x00\x00", frames(header), frames(header, "result") + "x", "\xff\xff\xff\xff" + header, frames("\x0a\xff", "r"), frames("\xff", "r"),
		frames(header, "result")[:30],
	} {
		answer = ok(Protobuf, bad)
		if got, err := c.Call(t.Context(), n, call); nodeError(err) == nil {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
	answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	if got, err := c.Call(t.Context(), n, call); nodeError(err) == nil {
		t.Errorf("no content type: %q, %v", got, err)
	}
}
