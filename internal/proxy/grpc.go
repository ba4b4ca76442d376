package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
)

// The codes of gRPC that a broken stream can have.
const (
	grpcCancelled         = 1
	grpcDeadlineExceeded  = 4
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
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return grpcDeadlineExceeded
	case !errors.As(err, &reset):
		return grpcUnavailable // the connection broke, the node is gone
	}
	switch reset.Code {
	case 0x7: // REFUSED_STREAM
		return grpcUnavailable
	case resetCancel:
		return grpcCancelled
	case 0xb: // ENHANCE_YOUR_CALM
		return grpcResourceExhausted
	case 0xc: // INADEQUATE_SECURITY
		return grpcPermissionDenied
	}
	return grpcInternal
}

// resetCancel is CANCEL among the codes of RFC 9113 section 7.
const resetCancel = 0x8

// outOfTime makes a deadline out of err when it is what a gRPC server does at a
// call's deadline: grpc-go resets the stream with CANCEL. A client takes that
// for the end of its own time, as the sidecar has to.
func (p *passage) outOfTime(err error) error {
	reset := (*transport.ResetError)(nil)
	if !errors.As(err, &reset) || reset.Code != resetCancel {
		return err
	}
	if limit, ok := grpcTimeout(p.r.Header.Get("grpc-timeout")); ok && discovery.Now()-p.begun >= int64(limit) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// grpcTimeout reads the field grpc-timeout: at most eight digits and a unit.
func grpcTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}
	unit := units[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil || unit == 0 || n > uint64(math.MaxInt64/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
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
