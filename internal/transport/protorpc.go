package transport

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of protorpc's headers.
const (
	protorpcMethod = 1
	protorpcError  = 3
)

// protorpcRequest makes the two frames of a request. The sequence is 0, which
// proto3 leaves out.
func protorpcRequest(method string, argument []byte) []byte {
	header := protowire.AppendTag(nil, protorpcMethod, protowire.BytesType)
	header = protowire.AppendString(header, method)
	b := make([]byte, 0, 8+len(header)+len(argument))
	return appendFrame(appendFrame(b, header), argument)
}

func appendFrame(b, frame []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(frame)))
	return append(b, frame...)
}

// protorpcResult takes the message out of the two frames of an answer. The
// lengths in them are only ever compared with what is there.
func protorpcResult(answer []byte) ([]byte, error) {
	header, rest, err := cutFrame(answer)
	if err != nil {
		return nil, err
	}
	text, err := protorpcErrorText(header)
	if err != nil {
		return nil, err
	}
	if text != "" {
		// Some servers send no second frame beside an error.
		return nil, ParseServiceError(text)
	}
	body, rest, err := cutFrame(rest)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("answered with %d bytes after the last frame", len(rest))
	}
	return body, nil
}

// cutFrame takes a frame off b.
func cutFrame(b []byte) (frame, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errors.New("answer ends before a frame")
	}
	size, b := binary.BigEndian.Uint32(b), b[4:]
	if uint64(size) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("answered with a frame of %d bytes, of which %d are there", size, len(b))
	}
	return b[:size], b[size:], nil
}

// protorpcErrorText reads the error out of an answer's header.
func protorpcErrorText(header []byte) (text string, err error) {
	for len(header) > 0 {
		num, typ, n := protowire.ConsumeTag(header)
		if n < 0 {
			return "", fmt.Errorf("answer with a malformed header: %w", protowire.ParseError(n))
		}
		header = header[n:]
		if num == protorpcError && typ == protowire.BytesType {
			var value []byte
			if value, n = protowire.ConsumeBytes(header); n >= 0 {
				text = string(value)
			}
		} else {
			n = protowire.ConsumeFieldValue(num, typ, header)
		}
		if n < 0 {
			return "", fmt.Errorf("answer with a malformed header: %w", protowire.ParseError(n))
		}
		header = header[n:]
	}
	return text, nil
}
