// Package http1 reads and writes HTTP/1.1 messages (RFC 9112), for both sides
// of a proxy. It keeps what it reads as it came: names in their spelling and
// order, targets byte for byte. It is strict about everything that says where
// a message ends, because two programs that disagree about that can be played
// against each other. It owns no connection and sets no deadline.
package http1

import (
	"errors"
	"fmt"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Limits of a message's head, whoever sends it.
const (
	// MaxHead is the size in bytes, MaxFields the number of header fields.
	MaxHead   = 64 << 10
	MaxFields = 256
	// maxTrailer is the size of a trailer section in bytes.
	maxTrailer = 16 << 10
	// maxChunkLine is the size of the line in front of a chunk, extensions
	// included.
	maxChunkLine = 256
)

// Lengths of a body that are no number of bytes.
const (
	// Chunked bodies tell their end themselves.
	Chunked = -1
	// UntilClose bodies end with the connection (answers only).
	UntilClose = -2
)

// Error says what is wrong with a message.
type Error struct{ Reason string }

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

func malformed(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// ErrHeadTooLarge is returned for a head over [MaxHead] or [MaxFields].
var ErrHeadTooLarge = errors.New("the message's head is too large")

// Head is what request and answer heads have in common.
type Head struct {
	// Minor is the minor version: 1 for HTTP/1.1, 0 for HTTP/1.0.
	Minor int
	// Header holds all fields as they came, but Host in a request. Its memory
	// is used again by the next Parse into the same value.
	Header httpmsg.Header
	// Length is the body's size in bytes, [Chunked] or [UntilClose].
	Length int64
	// Close says that the connection ends with this message.
	Close bool
	// Upgrade holds the Upgrade field when Connection names it, else "".
	Upgrade string
}

// Request is a request's head.
type Request struct {
	Head
	Method string
	// Target is the request target as it came, in whatever form.
	Target string
	Host   string
	// Continue says that the client waits for a 100 before it sends the body.
	Continue bool
}

// Response is an answer's head.
type Response struct {
	Head
	Status int
	Reason string
}
