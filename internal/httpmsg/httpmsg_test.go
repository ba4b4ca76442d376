package httpmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

// list writes a header for comparison.
func list(h Header) string { return fmt.Sprint([]Field(h)) }

func TestGet(t *testing.T) {
	h := Header{{"X-A", "1"}, {"x-a", "2"}, {"Empty", ""}}
	for name, want := range map[string]string{"X-A": "1", "x-A": "1", "Empty": "", "None": "", "": ""} {
		if got := h.Get(name); got != want {
			t.Errorf("Get(%q) = %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"X-A": true, "x-A": true, "EMPTY": true, "None": false, "": false} {
		if got := h.Has(name); got != want {
			t.Errorf("Has(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestAddKeepsOrderAndSpelling(t *testing.T) {
	var h Header
	h.Add("b", "1")
	h.Add("A", "2")
	h.Add("B", "3")
	if got, want := list(h), "[{b 1} {A 2} {B 3}]"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
}

func TestSet(t *testing.T) {
	for _, test := range []struct {
		before Header
		after  string
	}{
		{nil, "[{Host-Name new}]"},
		{Header{{"A", "1"}}, "[{A 1} {Host-Name new}]"},
		{Header{{"A", "1"}, {"host-name", "old"}, {"B", "2"}}, "[{A 1} {host-name new} {B 2}]"},
		{Header{{"HOST-NAME", "1"}, {"A", "1"}, {"host-name", "2"}, {"host-name", "3"}}, "[{HOST-NAME new} {A 1}]"},
	} {
		h := test.before.Clone()
		h.Set("Host-Name", "new")
		if list(h) != test.after {
			t.Errorf("%v became %s, want %s", test.before, list(h), test.after)
		}
	}
}

func TestDel(t *testing.T) {
	h := Header{{"a", "1"}, {"B", "2"}, {"A", "3"}, {"C", "4"}}
	h.Del("A")
	h.Del("None")
	if got, want := list(h), "[{B 2} {C 4}]"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	var none Header
	none.Del("A")
	if len(none) != 0 {
		t.Errorf("header %v", none)
	}
}

func TestHasToken(t *testing.T) {
	h := Header{{"Connection", "close, X-A"}, {"connection", " Upgrade ,,\tTE"}, {"Other", "keep-alive"}}
	for token, want := range map[string]bool{
		"close": true, "x-a": true, "upgrade": true, "te": true, "keep-alive": false, "up": false, "close, X-A": false,
	} {
		if got := h.HasToken("CONNECTION", token); got != want {
			t.Errorf("token %q: %v, want %v", token, got, want)
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	h := append(make(Header, 0, 8), Field{"A", "1"})
	c := h.Clone()
	c.Set("A", "2")
	c.Add("B", "3")
	h.Add("C", "4")
	if got, want := list(h)+list(c), "[{A 1} {C 4}][{A 2} {B 3}]"; got != want {
		t.Errorf("headers %s, want %s", got, want)
	}
	if Header(nil).Clone() != nil {
		t.Error("the clone of nothing is something")
	}
}

func TestPath(t *testing.T) {
	for target, want := range map[string]string{
		"/a%2Fb?x=/y?z": "/a%2Fb", "/a": "/a", "/a?": "/a", "?x": "", "*": "*", "/a//../b": "/a//../b",
	} {
		r := Request{Target: target}
		if got := r.Path(); got != want {
			t.Errorf("target %q: path %q, want %q", target, got, want)
		}
	}
}

func TestErrorf(t *testing.T) {
	err := Errorf(400, "%s: expected %d", "a", 1)
	if err.Status != 400 || err.Error() != "a: expected 1" || err.Allow != "" {
		t.Errorf("error %+v", err)
	}
}

func TestBodyError(t *testing.T) {
	for _, kept := range []error{Errorf(413, "too large"), context.Canceled, context.DeadlineExceeded} {
		if err := BodyError(fmt.Errorf("read: %w", kept)); !errors.Is(err, kept) {
			t.Errorf("%v became %v", kept, err)
		}
	}
	if refusal := (*Error)(nil); !errors.As(BodyError(io.ErrUnexpectedEOF), &refusal) || refusal.Status != 400 {
		t.Error("a body that broke off is no bad request")
	}
}

// After Set and Del the fields of other names are as they were, in their order.
func FuzzHeader(f *testing.F) {
	f.Add("A", "a", "B", "A")
	f.Add("", "", "", "")
	f.Add("\u212a", "k", "K", "k") // the sign for kelvin folds to k
	f.Fuzz(func(t *testing.T, a, b, c, name string) {
		h := Header{{a, "1"}, {b, "2"}, {c, "3"}}
		rest := func(h Header) Header {
			return slices.DeleteFunc(h.Clone(), func(f Field) bool { return Header{f}.Has(name) })
		}
		set, deleted := h.Clone(), h.Clone()
		set.Set(name, "new")
		deleted.Del(name)
		if !slices.Equal(rest(set), rest(h)) || set.Get(name) != "new" || len(set) != len(rest(h))+1 {
			t.Errorf("%v became %v", h, set)
		}
		if !slices.Equal(deleted, rest(h)) {
			t.Errorf("%v became %v", h, deleted)
		}
	})
}
