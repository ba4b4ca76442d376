package transport

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/micro/sidecar/internal/httpmsg"
)

// grpcCode is a gRPC status (google.rpc.Code).
type grpcCode int

// The statuses that mean something here.
const (
	grpcOK            grpcCode = 0
	grpcNotFound      grpcCode = 5
	grpcUnimplemented grpcCode = 12
)

// known returns the name of the status and the HTTP status that
// google/rpc/code.proto gives for it.
func (c grpcCode) known() (name string, status int) {
	switch c {
	case 0:
		return "OK", http.StatusOK
	case 1:
		return "CANCELLED", statusClientClosed
	case 2:
		return "UNKNOWN", http.StatusInternalServerError
	case 3:
		return "INVALID_ARGUMENT", http.StatusBadRequest
	case 4:
		return "DEADLINE_EXCEEDED", http.StatusGatewayTimeout
	case 5:
		return "NOT_FOUND", http.StatusNotFound
	case 6:
		return "ALREADY_EXISTS", http.StatusConflict
	case 7:
		return "PERMISSION_DENIED", http.StatusForbidden
	case 8:
		return "RESOURCE_EXHAUSTED", http.StatusTooManyRequests
	case 9:
		return "FAILED_PRECONDITION", http.StatusBadRequest
	case 10:
		return "ABORTED", http.StatusConflict
	case 11:
		return "OUT_OF_RANGE", http.StatusBadRequest
	case 12:
		return "UNIMPLEMENTED", http.StatusNotImplemented
	case 13:
		return "INTERNAL", http.StatusInternalServerError
	case 14:
		return "UNAVAILABLE", http.StatusServiceUnavailable
	case 15:
		return "DATA_LOSS", http.StatusInternalServerError
	case 16:
		return "UNAUTHENTICATED", http.StatusUnauthorized
	}
	return "code " + strconv.Itoa(int(c)), http.StatusInternalServerError
}

// statusClientClosed is what google/rpc/code.proto gives for CANCELLED, "Client
// Closed Request"; net/http has no name for it.
const statusClientClosed = 499

// grpcStatus reads the status out of the fields that end a call. code is
// grpcOK and e nil when the call went well; ok is false when there is no
// status, or one that is no number.
func grpcStatus(h httpmsg.Header) (code grpcCode, e *ServiceError, ok bool) {
	number, err := strconv.ParseUint(h.Get("grpc-status"), 10, 31)
	if err != nil {
		return 0, nil, false
	}
	if code = grpcCode(number); code == grpcOK {
		return code, nil, true
	}
	message := percentDecode(h.Get("grpc-message"))
	// go-micro's own error goes first: whole in the details, or as JSON in the
	// message (server/grpc of go-micro).
	if e := detailsError(h.Get("grpc-status-details-bin")); e != nil {
		return code, e, true
	}
	if e, isError := parseError(message); isError && e.valid() {
		e.Detail = strings.ToValidUTF8(e.Detail, "\uFFFD")
		return code, e, true
	}
	name, status := code.known()
	e = &ServiceError{Code: status, Detail: strings.ToValidUTF8(message, "\uFFFD"), Status: http.StatusText(status)}
	if status == statusClientClosed {
		e.Status = "Client Closed Request"
	}
	if e.Detail == "" {
		e.Detail = "gRPC status " + name
	}
	return code, e, true
}

// percentDecode undoes the encoding of grpc-message; what is no escape stays
// as it is, as gRPC demands.
func percentDecode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(v))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// goMicroError is the name of go-micro's error among the details of a status.
const goMicroError = "errors.Error"

// detailsError finds go-micro's error in grpc-status-details-bin, the
// google.rpc.Status in base64, with padding or without. nil when there is none
// that can be used.
func detailsError(value string) *ServiceError {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return nil
	}
	var found *ServiceError
	eachField(raw, func(number protowire.Number, detail []byte, _ uint64) {
		if number != 3 || found != nil { // details, each an Any
			return
		}
		var name string
		var message []byte
		eachField(detail, func(number protowire.Number, value []byte, _ uint64) {
			switch number {
			case 1:
				name = string(value[strings.LastIndexByte(string(value), '/')+1:])
			case 2:
				message = value
			}
		})
		if name == goMicroError {
			found = microError(message)
		}
	})
	return found
}

// microError reads go-micro's errors.Error; nil when its code is none.
func microError(message []byte) *ServiceError {
	e := &ServiceError{}
	text := func(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
	eachField(message, func(number protowire.Number, value []byte, n uint64) {
		switch number {
		case 1:
			e.ID = text(value)
		case 2:
			e.Code = int(int32(n))
		case 3:
			e.Detail = text(value)
		case 4:
			e.Status = text(value)
		}
	})
	if !e.valid() {
		return nil
	}
	return e
}

// eachField calls f with each field of a protobuf message: the bytes of a
// length-delimited one, or the number of a varint. It returns false where the
// message is malformed; f has seen what stands before.
func eachField(b []byte, f func(number protowire.Number, value []byte, n uint64)) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch kind {
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return false
			}
			f(number, value, 0)
			b = b[n:]
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return false
			}
			f(number, nil, value)
			b = b[n:]
		default:
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return false
			}
			b = b[n:]
		}
	}
	return true
}
