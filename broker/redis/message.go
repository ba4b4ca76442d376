package redis

import (
	"bytes"
	"errors"
	"net/url"

	"github.com/micro/sidecar/broker"
)

// encode writes a message as it travels and is stored: its header as a query
// string, which keeps any bytes and holds no line end, a line end, and the
// body as it is.
func encode(m broker.Message) []byte {
	values := make(url.Values, len(m.Header))
	for k, v := range m.Header {
		values[k] = []string{v}
	}
	header := values.Encode()
	text := make([]byte, 0, len(header)+1+len(m.Body))
	text = append(text, header...)
	text = append(text, '\n')
	return append(text, m.Body...)
}

// errOdd is what a message gets that was not published with micro.
var errOdd = errors.New("not a message of micro: no line with its header")

// decode reads a message; text becomes the receiver's. What is no message of
// ours is one without a header, and an error tells why.
func decode(text []byte) (broker.Message, error) {
	header, body, ok := bytes.Cut(text, []byte("\n"))
	if !ok {
		return broker.Message{Header: map[string]string{}, Body: text}, errOdd
	}
	values, err := url.ParseQuery(string(header))
	if err != nil {
		return broker.Message{Header: map[string]string{}, Body: text}, err
	}
	m := broker.Message{Header: make(map[string]string, len(values)), Body: body}
	for k, v := range values {
		m.Header[k] = v[0]
	}
	return m, nil
}
