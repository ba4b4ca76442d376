package transport

import (
	"bytes"
	"errors"
	"io"
)

// ErrTooLarge is returned by [ReadLimited].
var ErrTooLarge = errors.New("body too large")

// trusted is the announced length up to which memory is set aside beforehand.
const trusted = 64 << 10

// ReadLimited reads r to its end: at most limit bytes, else [ErrTooLarge].
// length is the announced size, -1 when there is none; it is never trusted
// with a large allocation. Fewer bytes than announced are io.ErrUnexpectedEOF.
func ReadLimited(r io.Reader, length, limit int64) ([]byte, error) {
	switch {
	case length > limit:
		return nil, ErrTooLarge
	case length == 0:
		return nil, nil
	case length > 0 && length <= trusted:
		b := make([]byte, length)
		if _, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		return b, drain(r)
	}
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, ErrTooLarge
	case length > 0 && n < length:
		return nil, io.ErrUnexpectedEOF
	}
	return buf.Bytes(), nil
}

// drain reads the end of a body whose announced length is there already: it is
// what tells the connection's owner that the message is complete.
func drain(r io.Reader) error {
	var one [1]byte
	switch n, err := r.Read(one[:]); {
	case n > 0:
		return errors.New("body longer than announced")
	case err != nil && !errors.Is(err, io.EOF):
		return err
	}
	return nil
}
