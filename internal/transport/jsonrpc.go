package transport

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/micro/sidecar/internal/httpmsg"
)

// argument returns JSON on one line; {} for an empty body.
func argument(body []byte) ([]byte, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return []byte("{}"), nil
	}
	one, err := compact(body)
	if err != nil {
		return nil, httpmsg.Errorf(http.StatusBadRequest, "the request's body is malformed JSON: %v", err)
	}
	return one, nil
}

// compact returns JSON without white space between its parts, all else as it
// was written.
func compact(body []byte) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(len(body))
	if err := json.Compact(&buf, body); err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	return buf.Bytes(), nil
}

// jsonrpcRequest makes the envelope. The id is always 0: one call is on the
// connection at a time. Servers need exactly one element in params.
func jsonrpcRequest(method string, argument []byte) ([]byte, error) {
	name, err := json.Marshal(method)
	if err != nil {
		return nil, fmt.Errorf("encode method %q: %w", method, err)
	}
	b := make([]byte, 0, len(name)+len(argument)+len(`{"method":,"params":[],"id":0}`))
	b = append(b, `{"method":`...)
	b = append(b, name...)
	b = append(b, `,"params":[`...)
	b = append(b, argument...)
	return append(b, `],"id":0}`...), nil
}

// jsonrpcResult opens the envelope of an answer. Whatever the id is, it is
// not compared: servers send it as a number, a string, or not at all.
func jsonrpcResult(body []byte) ([]byte, error) {
	var envelope struct {
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return nil, fmt.Errorf("answered what is no JSON-RPC: %w: %s", err, excerpt(body))
	}
	if e := envelopeError(envelope.Error); e != nil {
		return nil, e
	}
	switch {
	case envelope.Result != nil:
		return compact(envelope.Result)
	case envelope.Error != nil:
		return []byte("null"), nil
	}
	return nil, fmt.Errorf("answered JSON with neither result nor error: %s", excerpt(body))
}

// envelopeError reads the error of a JSON-RPC answer: null, "" and false are
// none; others are text, text that holds a go-micro error, or an object.
func envelopeError(value json.RawMessage) *ServiceError {
	switch string(value) {
	case "", "null", `""`, "false":
		return nil
	}
	if value[0] != '"' {
		return ParseServiceError(string(value))
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		text = string(value)
	}
	return ParseServiceError(text)
}

// bodyError returns the go-micro error that an answer of another status than
// 200 carries, in an envelope or by itself, or nil.
func bodyError(body []byte) *ServiceError {
	var envelope struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &envelope) != nil {
		return nil
	}
	if e := envelopeError(envelope.Error); e != nil {
		return e
	}
	if e, ok := parseError(string(body)); ok && e.valid() {
		return e
	}
	return nil
}
