package proxy

import (
	"errors"
	"strconv"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
)

// The codes of gRPC that a broken stream can have.
const (
	grpcCancelled         = 1
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcInternal          = 13
	grpcUnavailable       = 14
)

// cutOff ends an answer that the node did not complete. A gRPC client gets the
// status that it would have made of it itself, had it been the node's client,
// and the reason. Everybody else's connection or stream is cut.
func cutOff(grpc bool, w httpmsg.ResponseWriter, err error) error {
	node := (*transport.NodeError)(nil)
	if !grpc || !errors.As(err, &node) {
		return httpmsg.ErrAborted
	}
	trailer := httpmsg.Header{
		{Name: "grpc-status", Value: strconv.Itoa(brokenStatus(err))},
		{Name: "grpc-message", Value: grpcMessage(node.Error())},
	}
	if w.Trailer(trailer) != nil {
		return httpmsg.ErrAborted
	}
	return nil
}

// brokenStatus is the code of a stream that broke, as in "HTTP2 Transport
// Mapping" of gRPC's protocol.
func brokenStatus(err error) int {
	reset := (*transport.ResetError)(nil)
	if !errors.As(err, &reset) {
		return grpcUnavailable // the connection broke, the node is gone
	}
	switch reset.Code {
	case 0x7: // REFUSED_STREAM
		return grpcUnavailable
	case 0x8: // CANCEL
		return grpcCancelled
	case 0xb: // ENHANCE_YOUR_CALM
		return grpcResourceExhausted
	case 0xc: // INADEQUATE_SECURITY
		return grpcPermissionDenied
	}
	return grpcInternal
}

// grpcMessage encodes a text as the field grpc-message has it.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)+0x100, 16)[1:]))
		}
	}
	return b.String()
}
