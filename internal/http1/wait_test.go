package http1

import (
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// Wait reads no more than tells that a piece is coming, and changes nothing in
// what Read yields.
func TestWaitChangesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		length int64
		wire   string
		body   string
		err    error
	}{
		"chunks":             {Chunked, "3\r\nabc\r\n4\r\ndefg\r\n0\r\nX: y\r\n\r\n", "abcdefg", nil},
		"until the end":      {UntilClose, "abcdefg", "abcdefg", nil},
		"a length":           {7, "abcdefg", "abcdefg", nil},
		"nothing":            {0, "", "", nil},
		"chunks broken off":  {Chunked, "3\r\nabc\r\n4", "abc", io.ErrUnexpectedEOF},
		"a chunk broken off": {Chunked, "3\r\nabc\r\n4\r\nde", "abcde", io.ErrUnexpectedEOF},
		"a length not met":   {8, "abcdefg", "abcdefg", io.ErrUnexpectedEOF},
	} {
		in, out := io.Pipe()
		go func() {
			for i := range test.wire { // each byte by itself
				_, _ = io.WriteString(out, test.wire[i:i+1])
			}
			_ = out.Close()
		}()
		var b Body
		b.Reset(NewReader(in), test.length)
		got, err := io.ReadAll(waiting{&b})
		if string(got) != test.body || !errors.Is(err, test.err) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if test.length == Chunked && err == nil && b.Trailer().Get("X") != "y" {
			t.Errorf("%s: trailer %v", name, b.Trailer())
		}
		_ = in.Close()
	}
}

// waiting waits before each read.
type waiting struct{ b *Body }

func (w waiting) Read(p []byte) (int, error) {
	w.b.Wait()
	return w.b.Read(p)
}

// An error found by Wait is Read's.
func TestWaitKeepsErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, length := range []int64{Chunked, UntilClose} {
		var b Body
		b.Reset(NewReader(iotest.ErrReader(broken)), length)
		b.Wait()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, broken) {
			t.Errorf("length %d: got %v", length, err)
		}
	}
	var b Body
	b.Reset(NewReader(iotest.OneByteReader(iotest.ErrReader(broken))), 5)
	b.Wait() // a piece of it is on its way: there is nothing to wait for
}
