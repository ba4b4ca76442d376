package transport

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
)

// raw is the form of go-micro since v0.23: the body is the argument itself,
// what is called stands in Micro- headers.
type raw struct {
	// stream is a number that no other request of this client has. go-micro v4
	// and v5 keep a pseudo-socket for each stream of a connection, and one for
	// all requests that name none; they take it down a moment after the answer
	// has left, and a request that arrives within that moment is swallowed: it
	// would never be answered. A request that names a stream of its own is
	// safe; on a method that does not stream the name has no other effect.
	stream uint64
}

func (r raw) request(h *httpmsg.Header, _ string, c Call) ([]byte, error) {
	if !http1.IsValue(c.Service) || !http1.IsValue(c.Method) {
		return nil, httpmsg.Errorf(http.StatusBadRequest, "service %q or method %q holds control characters", c.Service, c.Method)
	}
	h.Add("Micro-Service", c.Service)
	h.Add("Micro-Method", c.Method)
	h.Add("Micro-Endpoint", c.Method)
	h.Add("Micro-Id", "0")
	h.Add("Micro-Stream", strconv.FormatUint(r.stream, 10))
	return c.Body, nil
}

func (raw) result(media string, h httpmsg.Header, body []byte) ([]byte, error) {
	if e := headerError(h); e != nil {
		return nil, e
	}
	if err := checkType(media, h, body); err != nil {
		return nil, err
	}
	if media == Protobuf {
		return body, nil
	}
	return compact(body)
}

// headerError returns the error that go-micro puts into a header, or nil.
func headerError(h httpmsg.Header) *ServiceError {
	text := h.Get("Micro-Error")
	if text == "" {
		text = h.Get("X-Micro-Error")
	}
	if text == "" {
		return nil
	}
	return ParseServiceError(text)
}

// checkType refuses an answer of another content type than the one asked for.
// JSON without any is taken for what it is, small servers often leave it out.
func checkType(media string, h httpmsg.Header, body []byte) error {
	said := h.Get("Content-Type")
	if got, ok := MediaType(said); ok && got == media {
		return nil
	}
	return fmt.Errorf("answered with content type %q, not %s: %s", said, media, excerpt(body))
}
