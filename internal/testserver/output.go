package testserver

import (
	"strings"
	"sync"
)

// Output collects what a program or a logger writes, while a test looks at it.
// The zero value is empty; it is safe for concurrent use.
type Output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write adds to the output.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

// String returns all of it.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
