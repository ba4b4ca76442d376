package http1

import (
	"strconv"

	"github.com/micro/sidecar/internal/httpmsg"
)

// AppendRequestLine appends a request line and the Host field.
func AppendRequestLine(b []byte, method, target, host string) []byte {
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	return append(b, "\r\n"...)
}

// AppendStatusLine appends a status line.
func AppendStatusLine(b []byte, status int, reason string) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// AppendFields appends fields as they are. They must be valid, see [IsToken]
// and [IsValue].
func AppendFields(b []byte, h httpmsg.Header) []byte {
	for i := range h {
		b = AppendField(b, h[i].Name, h[i].Value)
	}
	return b
}

// AppendField appends one field.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// AppendLength appends the field that frames a body of that length; nothing
// for [UntilClose].
func AppendLength(b []byte, length int64) []byte {
	switch {
	case length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	case length == Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	return b
}

// AppendChunkSize appends the line in front of a chunk of n bytes; the chunk
// is followed by CR LF.
func AppendChunkSize(b []byte, n int) []byte {
	b = strconv.AppendUint(b, uint64(n), 16)
	return append(b, "\r\n"...)
}

// AppendLastChunk appends the end of a chunked body.
func AppendLastChunk(b []byte, trailer httpmsg.Header) []byte {
	b = append(b, "0\r\n"...)
	b = AppendFields(b, trailer)
	return append(b, "\r\n"...)
}
