package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// NodeError says that a node could not be reached, broke off, or answered
// what makes no sense. A context that ended is found in it with errors.Is;
// context.DeadlineExceeded is there only when it was the caller's deadline, or the
// one for the head that the caller gave.
type NodeError struct {
	// Addr is the node's "host:port".
	Addr string
	// Sent is false only when it is certain that no byte of the request
	// reached the node and none of its body was used up, so that another node
	// may be sent the same request.
	Sent bool
	// Refused: not sent, but the node was there and said that it takes no such
	// request.
	Refused bool
	// Status is that of the answer that the node gave, when it gave one and it
	// was not what was expected.
	Status int
	Err    error
}

// Error names the node and what was wrong with it.
func (e *NodeError) Error() string { return fmt.Sprintf("node %s: %v", e.Addr, e.Err) }

// Unwrap returns the cause.
func (e *NodeError) Unwrap() error { return e.Err }

// LaterError is an error that the node wants to be asked again after, and not
// before.
type LaterError struct {
	After time.Duration
	Err   error
}

// Error is that of the error in it.
func (e *LaterError) Error() string { return e.Err.Error() }

// Unwrap returns the error in it.
func (e *LaterError) Unwrap() error { return e.Err }

// failed makes the error of an exchange with a node that did not come off.
func failed(ctx context.Context, addr string, sent bool, err error) error {
	switch deadline, ok := ctx.Deadline(); {
	case ctx.Err() != nil:
		err = ctx.Err()
	case ok && !time.Now().Before(deadline):
		// The connection's own timer ran out a moment before the context's.
		err = context.DeadlineExceeded
	case errors.Is(err, errSlow):
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		// net's errors for a connection that took too long pass for the
		// caller's deadline, which this was not.
		err = errors.New(err.Error())
	}
	return &NodeError{Addr: addr, Sent: sent, Refused: !sent && errors.Is(err, errUnprocessed), Err: err}
}

// nonsense makes the error of a node that answered, but not what it should.
func nonsense(addr, format string, args ...any) error {
	return &NodeError{Addr: addr, Sent: true, Status: http.StatusOK, Err: fmt.Errorf(format, args...)}
}
