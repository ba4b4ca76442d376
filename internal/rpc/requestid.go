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

// identified returns the header of r with a request id, and notes the id. Where
// somebody keeps account one is made when there was none; else a node is sent
// what the 2017 sidecar sent it, and nothing more.
func identified(r *httpmsg.Request) httpmsg.Header {
	id := r.Header.Get(requestID)
	header := r.Header
	if id == "" && r.Account == nil {
		return header
	}
	if id == "" {
		id = NewRequestID()
		header.Add(requestID, id) // beyond the end of r's own
	}
	if r.Account != nil {
		r.Account.RequestID = id
	}
	return header
}
