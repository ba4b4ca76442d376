package httpbroker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/micro/sidecar/broker"
)

// headerAllowance is the room for a message's header in a delivery, in bytes.
const headerAllowance = 1 << 20

// envelope is a delivery's body in all generations.
type envelope struct {
	Header map[string]string
	Body   []byte // base64 in JSON
}

// encode makes the body of a delivery. JSON carries text: in a header value
// that is not valid UTF-8, U+FFFD takes the place of what is not.
func encode(g generation, topic string, m broker.Message) ([]byte, error) {
	header := make(map[string]string, len(m.Header)+2)
	maps.Copy(header, m.Header)
	header[g.header] = topic
	if g.routes {
		header[topicName] = topic
	}
	body := m.Body
	if body == nil {
		body = []byte{} // "" rather than null, as go-micro's own messages have it
	}
	payload, err := json.Marshal(envelope{Header: header, Body: body})
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return payload, nil
}

// decode parses the body of a delivery and takes the topic out of its header.
// Which key holds the topic depends on the sender's generation: the one that
// belongs to the path is looked for first.
func decode(payload []byte, topicHeader string) (topic string, m broker.Message, err error) {
	var e envelope
	if err := json.Unmarshal(payload, &e); err != nil {
		return "", m, fmt.Errorf("not a message of the form {\"Header\":{…},\"Body\":\"<base64>\"}: %w", err)
	}
	keys := []string{topicHeader}
	for _, g := range generations() {
		keys = append(keys, g.header)
	}
	for _, key := range keys {
		topic = e.Header[key]
		delete(e.Header, key)
		if topic != "" {
			return topic, broker.Message{Header: e.Header, Body: e.Body}, nil
		}
	}
	return "", m, errors.New("the message's Header does not tell its topic")
}

// maxPayload is the size in bytes of the largest delivery that can hold a body
// within the limit.
func maxPayload(maxBody int64) int64 {
	return int64(base64.StdEncoding.EncodedLen(int(maxBody))) + headerAllowance
}
