package transport

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// ServiceError is what a service answered instead of a result, in go-micro's
// form.
type ServiceError struct {
	ID string `json:"id"`
	// Code is an HTTP status from 400 to 599.
	Code   int    `json:"code"`
	Detail string `json:"detail"`
	Status string `json:"status"`
}

// Error returns the detail.
func (e *ServiceError) Error() string {
	if e.Detail == "" {
		return e.Status
	}
	return e.Detail
}

// valid reports whether the code can be an answer's status.
func (e *ServiceError) valid() bool { return e.Code >= 400 && e.Code <= 599 }

// ParseServiceError reads the text of an error: go-micro's JSON, JSON-RPC's
// object with a message, or any text. What has no code from 400 to 599 is 500
// with its text as the detail.
func ParseServiceError(text string) *ServiceError {
	text = strings.TrimSpace(text)
	e, ok := parseError(text)
	if !ok {
		e = &ServiceError{Detail: text}
	}
	if !e.valid() {
		if e.Detail == "" {
			e.Detail = text
		}
		e.Code, e.Status = http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError)
	}
	e.Detail = strings.ToValidUTF8(e.Detail, "\uFFFD")
	return e
}

// parseError reads an error object; ok is false when text is none.
func parseError(text string) (e *ServiceError, ok bool) {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return nil, false
	}
	var object struct {
		ID      json.RawMessage `json:"id"`
		Code    json.RawMessage `json:"code"`
		Detail  string          `json:"detail"`
		Status  string          `json:"status"`
		Message string          `json:"message"`
	}
	if json.Unmarshal([]byte(text), &object) != nil {
		return nil, false
	}
	e = &ServiceError{ID: unquote(object.ID), Detail: object.Detail, Status: object.Status}
	if e.Detail == "" {
		e.Detail = object.Message
	}
	// A code that is no number, or too large a one, is none.
	if code, err := strconv.Atoi(unquote(object.Code)); err == nil {
		e.Code = code
	}
	return e, true
}

// unquote returns the text of a JSON string, "" for null, and other values as
// they are written.
func unquote(value json.RawMessage) string {
	var s string
	switch {
	case len(value) == 0:
		return ""
	case json.Unmarshal(value, &s) == nil: // null included
		return s
	}
	return string(value)
}

// excerptLen is how much of an answer an error shows, in bytes.
const excerptLen = 120

// excerpt quotes the beginning of an answer for people.
func excerpt(b []byte) string {
	if len(b) <= excerptLen {
		return strconv.Quote(string(b))
	}
	return strconv.Quote(string(b[:excerptLen])) + "…"
}
