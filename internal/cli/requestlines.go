package cli

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// requestLines is the body of a request whose messages come one after another.
type requestLines struct {
	next func() ([]byte, error)
	left []byte

	mu  sync.Mutex
	err error
}

// Read gives the messages, each on a line.
func (b *requestLines) Read(p []byte) (int, error) {
	if len(b.left) == 0 {
		line, err := b.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				b.mu.Lock()
				b.err = err
				b.mu.Unlock()
			}
			return 0, err
		}
		b.left = append(bytes.Clone(line), '\n')
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// failed is what the messages ended with, when it was not their end.
func (b *requestLines) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
