// Package tunnel joins two connections that were upgraded: what comes on one
// goes out on the other, ends included. It owns how they are copied; the
// handshake in front and who talks to whom are its callers'. A tunnel may be
// idle for days: it has no timeout, and holds no buffer while nothing comes.
package tunnel

import (
	"context"
	"errors"
	"io"
)

// Join copies both ways until both sides have ended, and closes both. What one
// side closes for writing is closed for writing on the other. When one breaks,
// or ctx ends, both are broken: a peer must not take what it got for all there
// was. A side that takes no more bytes holds the other one back: nothing is
// read ahead of what can be written.
//
// It runs one direction itself, the other in a goroutine that ends before Join
// returns.
func Join(ctx context.Context, a, b io.ReadWriteCloser) {
	defer func() {
		_ = a.Close() // all that was to be said is said
		_ = b.Close()
	}()
	defer context.AfterFunc(ctx, func() {
		Abort(a)
		Abort(b)
	})()
	other := make(chan struct{})
	go func() {
		defer close(other)
		direction(b, a)
	}()
	direction(a, b)
	<-other
}

// direction copies one direction, and breaks both sides when it breaks.
func direction(dst, src io.ReadWriteCloser) {
	if err := copyAll(dst, src); err != nil {
		Abort(src)
		Abort(dst)
	}
}

// copyAll copies src to dst until src ends, and passes the end on.
func copyAll(dst io.WriteCloser, src io.Reader) error {
	s := newSource(src)
	defer s.release()
	for {
		piece, err := s.next()
		if len(piece) > 0 {
			if _, werr := dst.Write(piece); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			closeWrite(dst)
			return nil
		case err != nil:
			return err
		}
	}
}

// closeWrite ends what is written to c. What cannot be half-closed is closed.
// An error means that the peer has gone already, which the other direction
// finds out by itself.
func closeWrite(c io.WriteCloser) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}
