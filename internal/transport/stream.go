package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// Stream is a call under way whose answer is any number of messages. It is
// used by one goroutine.
type Stream interface {
	// Recv waits for the next message: JSON on one line, or protobuf. io.EOF is
	// the end of a call that went well; other errors are those of
	// [Client.Call], and what [Requests.Next] or the reading of a message gave.
	Recv() ([]byte, error)
	// Close ends the call, if it is still under way.
	Close()
}

// Requests are the messages that a caller sends to a [Client.Stream].
type Requests struct {
	// Next waits for the next message; io.EOF is the end of them, any other
	// error ends the call. It is asked when the node has taken the message
	// before, by one goroutine at a time, until the stream is closed and
	// perhaps for a moment longer.
	Next func() ([]byte, error)
	// Full, when it is not nil, is called when the method takes no more
	// messages than the one it got, which is then the last. When it is nil,
	// another message ends the call with an error.
	Full func()
	// Timeout bounds the call to a node that knows no streams; 0 means no bound.
	Timeout time.Duration

	first []byte // taken by a try that did not come to send it
	taken bool
}

// next is Next, but gives a message that was taken and not sent once more.
func (r *Requests) next() ([]byte, error) {
	if r.taken {
		r.taken = false
		return r.first, nil
	}
	return r.Next()
}

// Stream makes a call of which neither the request nor the answer is one
// message. It returns when the answer begins, or with the error that came
// instead, as [Client.Call] does. ctx rules until the stream is closed; a
// deadline of it, or call.Timeout, is told to the node. call.Body is not used.
//
// Nodes that do not speak gRPC take one message and answer one; a second one
// from the caller is an error of status 501.
func (c *Client) Stream(ctx context.Context, n *discovery.Node, call Call, requests *Requests) (Stream, error) {
	if isGRPC(n) {
		return c.streamGRPC(ctx, n, call, requests)
	}
	first, err := requests.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	call.Body = first
	if requests.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requests.Timeout)
		defer cancel()
	}
	answer, cerr := c.Call(ctx, n, call)
	if cerr != nil {
		requests.first, requests.taken = first, err == nil
		return nil, cerr
	}
	return &single{answer: answer, requests: requests, ended: err != nil, service: call.Service}, nil
}

// single is the answer of a node that knows no streams.
type single struct {
	answer   []byte
	given    bool
	requests *Requests
	ended    bool // the caller has no more messages
	service  string
}

// Recv gives the answer, and waits then for the end of the requests: who sends
// more of them must learn that nobody takes them.
func (s *single) Recv() ([]byte, error) {
	if !s.given {
		s.given = true
		return s.answer, nil
	}
	if s.ended {
		return nil, io.EOF
	}
	if _, err := s.requests.next(); err != nil {
		return nil, err
	}
	return nil, httpmsg.Errorf(http.StatusNotImplemented, "service %s does not speak gRPC: it takes one message a call, and got another", s.service)
}

func (*single) Close() {}
