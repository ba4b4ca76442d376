package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A gRPC message travels behind a flag byte, 1 for compressed, and its length
// (PROTOCOL-HTTP2 of gRPC, "Length-Prefixed-Message").
const grpcPrefix = 5

// appendGRPC appends a message behind its prefix.
func appendGRPC(b, message []byte) []byte {
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	return append(b, message...)
}

// readGRPC reads one message of at most limit bytes. io.EOF means that there
// is none. The announced length is not trusted with a large allocation.
func readGRPC(r io.Reader, limit int64) ([]byte, error) {
	var prefix [grpcPrefix]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	if prefix[0] != 0 {
		return nil, errors.New("sent a compressed message, which it was not offered")
	}
	length := int64(binary.BigEndian.Uint32(prefix[1:]))
	if length > limit {
		return nil, fmt.Errorf("answered a message of %d bytes: %d is the limit (--max_body_size)", length, limit)
	}
	message, err := ReadLimited(io.LimitReader(r, length), length, limit)
	if err != nil {
		return nil, err
	}
	if message == nil {
		message = []byte{}
	}
	return message, nil
}
