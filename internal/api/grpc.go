package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry"
)

// What a gRPC client is told: an answer that is nothing but a head, with the
// status in it ("Trailers-Only" in gRPC's PROTOCOL-HTTP2.md).

// isGRPC reports whether a request came from a gRPC client: over HTTP/2, with
// application/grpc, or that with a message format ("+proto"). gRPC-Web is none.
func isGRPC(http2 bool, contentType string) bool {
	const kind = "application/grpc"
	if !http2 || len(contentType) < len(kind) || !strings.EqualFold(contentType[:len(kind)], kind) {
		return false
	}
	rest := contentType[len(kind):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// grpcHead is the head of an answer to a gRPC client.
func grpcHead(err error) httpmsg.Header {
	e, _ := classify(err)
	return httpmsg.Header{
		{Name: "Content-Type", Value: "application/grpc"},
		{Name: "Grpc-Status", Value: strconv.Itoa(grpcStatus(err, e.Code))},
		{Name: "Grpc-Message", Value: percentEncode(e.Detail)},
	}
}

// gRPC's statuses (google.rpc.Code).
const (
	grpcCancelled         = 1
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcStatus is the status that stands for an error with the given HTTP status:
// gRPC's own table for answers that come from something between (its
// http-grpc-status-mapping.md), where that is as exact as it can be. A service
// that is not in the registry is unavailable, which clients try again: it may
// be about to start.
func grpcStatus(err error, status int) int {
	if errors.Is(err, registry.ErrNotFound) {
		return grpcUnavailable
	}
	switch status {
	case http.StatusBadRequest, http.StatusInternalServerError:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return grpcUnimplemented
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return grpcResourceExhausted
	case statusClientGone:
		return grpcCancelled
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return grpcUnavailable
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return grpcDeadlineExceeded
	}
	return grpcUnknown
}

// percentEncode is gRPC's encoding of a message: printable ASCII but "%" stands
// for itself.
func percentEncode(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteString(string([]byte{'%', digits[c>>4], digits[c&15]}))
		}
	}
	return b.String()
}
