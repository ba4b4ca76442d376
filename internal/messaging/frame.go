package messaging

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/micro/sidecar/broker"
)

// appendFrame appends a message the way subscribers get it, which is what
// encoding/json makes of it: {"Header":{…},"Body":"<base64>"}. Header is never
// null. JSON carries text: what is not valid UTF-8 in a header becomes U+FFFD.
func appendFrame(dst []byte, m broker.Message) ([]byte, error) {
	header := []byte("{}")
	if len(m.Header) > 0 {
		var err error
		if header, err = json.Marshal(m.Header); err != nil {
			return nil, fmt.Errorf("encode header: %w", err)
		}
	}
	dst = append(dst, `{"Header":`...)
	dst = append(dst, header...)
	dst = append(dst, `,"Body":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, m.Body)
	return append(dst, `"}`...), nil
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
