package nats

import (
	"fmt"
	"net/url"

	gonats "github.com/nats-io/nats.go"
)

// headerField is the one NATS header field of a message. It holds all of the
// message's header as a query string, because NATS allows neither every key
// nor every value, and a query string keeps any bytes.
const headerField = "Micro-Header"

func encodeHeader(h map[string]string) string {
	values := make(url.Values, len(h))
	for k, v := range h {
		values[k] = []string{v}
	}
	return values.Encode()
}

// decodeHeader returns the header of a message that anybody may have
// published. Without the field it is empty.
func decodeHeader(h gonats.Header) (map[string]string, error) {
	header := make(map[string]string)
	field := h[headerField]
	if len(field) == 0 {
		return header, nil
	}
	values, err := url.ParseQuery(field[0])
	if err != nil {
		return header, fmt.Errorf("%s: %w", headerField, err)
	}
	for k, v := range values {
		header[k] = v[0]
	}
	return header, nil
}
