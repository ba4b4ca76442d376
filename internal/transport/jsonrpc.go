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
		return nil, httpmsg.Errorf(http.StatusBadRequest, "the request's body: %v", err)
	}
	return one, nil
}

// compact returns JSON without white space between its parts, all else as it
// was written: body itself, when there is none.
func compact(body []byte) ([]byte, error) {
	if !json.Valid(body) {
		var wrong bytes.Buffer
		return nil, fmt.Errorf("malformed JSON: %w", json.Compact(&wrong, body))
	}
	return squeeze(body), nil
}

// squeeze is compact for what is known to be JSON.
func squeeze(body []byte) []byte {
	first := bytes.IndexFunc(body, isSpace)
	if first < 0 {
		return body
	}
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); {
		switch c := body[i]; {
		case c == '"':
			end := i + stringEnd(body[i:])
			out = append(out, body[i:end]...)
			i = end
		case isSpace(rune(c)):
			i++
		default:
			out = append(out, c)
			i++
		}
	}
	return out
}

// isSpace knows JSON's white space (RFC 8259 section 2).
func isSpace(c rune) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// stringEnd returns the length of the JSON string that b begins with.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// jsonrpcRequest makes the envelope. The id is always 0: one call is on the
// connection at a time. Servers need exactly one element in params.
func jsonrpcRequest(method string, argument []byte) ([]byte, error) {
	name, err := quote(method)
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

// quote returns text as a JSON string. A method rarely needs escapes.
func quote(text string) ([]byte, error) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return json.Marshal(text)
		}
	}
	b := make([]byte, 0, len(text)+2)
	return append(append(append(b, '"'), text...), '"'), nil
}

// envelope is what of a JSON-RPC answer counts.
type envelope struct {
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// jsonrpcResult opens the envelope of an answer. Whatever the id is, it is
// not compared: servers send it as a number, a string, or not at all.
func jsonrpcResult(body []byte) ([]byte, error) {
	e, ok := openEnvelope(body)
	if !ok {
		if err := json.Unmarshal(body, &e); err != nil {
			return nil, fmt.Errorf("answered what is no JSON-RPC: %w: %s", err, excerpt(body))
		}
	}
	if e := envelopeError(e.Error); e != nil {
		return nil, e
	}
	switch {
	case e.Result != nil:
		return squeeze(e.Result), nil
	case e.Error != nil:
		return []byte("null"), nil
	}
	return nil, fmt.Errorf("answered JSON with neither result nor error: %s", excerpt(body))
}

// openEnvelope finds the members of a usual envelope, several times as fast as
// package json does and without allocating. ok is false when it is no JSON
// object or an unusual one, with escapes in a name or other capitals: then
// json has to read it.
func openEnvelope(body []byte) (e envelope, ok bool) {
	if !json.Valid(body) {
		return envelope{}, false
	}
	rest := trimSpace(body)
	if rest[0] != '{' {
		return envelope{}, false
	}
	for rest = trimSpace(rest[1:]); rest[0] != '}'; rest = trimSpace(rest) {
		if rest[0] == ',' {
			rest = trimSpace(rest[1:])
		}
		end := stringEnd(rest)
		name := rest[1 : end-1]
		rest = trimSpace(trimSpace(rest[end:])[1:]) // past the colon
		end = valueEnd(rest)
		switch string(name) {
		case "result":
			e.Result, ok = rest[:end:end], true
		case "error":
			e.Error, ok = rest[:end:end], true
		case "id", "jsonrpc":
		default:
			return envelope{}, false
		}
		rest = rest[end:]
	}
	return e, ok
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(rune(b[0])) {
		b = b[1:]
	}
	return b
}

// valueEnd returns the length of the JSON value that b begins with.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '"':
			i += stringEnd(b[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of what a number or a word stands in
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
			continue
		default:
			if isSpace(rune(c)) && depth == 0 {
				return i
			}
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(b)
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
