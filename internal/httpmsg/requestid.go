package httpmsg

import (
	"crypto/rand"
	"strings"
)

// requestID is the field that follows a request through all services.
const requestID = "X-Request-Id"

// NewRequestID makes the id of a request that came without one: 128 random bits.
func NewRequestID() string { return strings.ToLower(rand.Text()) }

// Identify returns header, which goes to a node for r, with r's request id, and
// notes the id. Where somebody keeps account one is made when there was none;
// else a node is sent what the client sent, and nothing more.
func (r *Request) Identify(header Header) Header {
	if r.Account == nil {
		return header
	}
	id := header.Get(requestID)
	if id == "" {
		id = NewRequestID()
		header.Add(requestID, id)
	}
	r.Account.RequestID = id
	return header
}
