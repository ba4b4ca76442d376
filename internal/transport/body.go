package transport

import (
	"context"
	"errors"
	"io"
	"sync"
)

// requestBody streams a request's body to the upstream. It remembers a read
// that failed, because that is the client's fault and not the node's.
type requestBody struct {
	reader io.Reader
	// atEnd, when set, runs once the body has ended, before the trailer is written.
	atEnd func()

	mu   sync.Mutex
	used bool
	err  error
}

// Read reads from the client.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.used = true
	b.mu.Unlock()
	n, err := b.reader.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if b.atEnd != nil {
			b.atEnd()
			b.atEnd = nil
		}
	default:
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// Close does nothing: the reader belongs to who gave it.
func (b *requestBody) Close() error { return nil }

// begun reports whether the body was read from. b may be nil.
func (b *requestBody) begun() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// failure returns the error of a read that failed. b may be nil.
func (b *requestBody) failure() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// responseBody is an answer's body whose errors name the node.
type responseBody struct {
	io.ReadCloser
	ctx  context.Context
	addr string
}

// Read reads from the node.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed(b.ctx, b.addr, true, err)
	}
	return n, err
}
