package messaging

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/micro/sidecar/broker"
)

// appendFrame appends a message the way subscribers get it, which is what
// encoding/json makes of it: {"Header":{…},"Body":"<base64>"}. Header is never
// null. JSON carries text: what is not valid UTF-8 in a header becomes U+FFFD.
func appendFrame(dst []byte, m broker.Message) ([]byte, error) {
	dst, err := appendMessage(append(dst, '{'), m)
	return append(dst, '}'), err
}

// appendDelivery appends a message the way durable subscribers get it: with
// its ID and the number of the attempt.
func appendDelivery(dst []byte, h *broker.Held) ([]byte, error) {
	id, err := json.Marshal(h.ID)
	if err != nil {
		return nil, fmt.Errorf("encode ID: %w", err)
	}
	dst = append(append(dst, `{"Id":`...), id...)
	dst, err = appendMessage(append(dst, ','), h.Message)
	dst = append(dst, `,"Attempt":`...)
	return append(strconv.AppendInt(dst, int64(h.Attempt), 10), '}'), err
}

// appendTopic adds the topic to a frame: subscribers to a pattern are told.
func appendTopic(frame []byte, topic string) ([]byte, error) {
	text, err := json.Marshal(topic)
	if err != nil {
		return frame, fmt.Errorf("encode topic: %w", err)
	}
	frame = append(frame[:len(frame)-1], `,"Topic":`...)
	return append(append(frame, text...), '}'), nil
}

// appendMessage appends header and body, without the braces.
func appendMessage(dst []byte, m broker.Message) ([]byte, error) {
	dst = append(dst, `"Header":`...)
	if len(m.Header) == 0 {
		dst = append(dst, "{}"...)
	} else {
		header, err := json.Marshal(m.Header)
		if err != nil {
			return nil, fmt.Errorf("encode header: %w", err)
		}
		dst = append(dst, header...)
	}
	dst = append(dst, `,"Body":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, m.Body)
	return append(dst, '"'), nil
}

// size is what a message counts for in a subscriber's buffer, in bytes.
func size(m broker.Message) int64 {
	const overhead = 128 // of a message and its header's map
	n := overhead + len(m.Body)
	for k, v := range m.Header {
		n += len(k) + len(v)
	}
	return int64(n)
}
