package rpc

import (
	"crypto/rand"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// requestID is the field that follows a request through all services. Like
// traceparent, tracestate and baggage it goes along as metadata.
const requestID = "X-Request-Id"

// NewRequestID makes the id of a request that came without one: 128 random bits.
func NewRequestID() string { return strings.ToLower(rand.Text()) }

// identified returns the header of r with a request id, made when there was
// none, and notes the id.
func identified(r *httpmsg.Request) httpmsg.Header {
	id := r.Header.Get(requestID)
	header := r.Header
	if id == "" {
		id = NewRequestID()
		header.Add(requestID, id) // beyond the end of r's own
	}
	if r.Account != nil {
		r.Account.RequestID = id
	}
	return header
}
