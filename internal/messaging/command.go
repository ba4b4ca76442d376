package messaging

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
)

// command is a frame of a durable subscriber.
type command struct {
	Verb    string // Ack, Nack, Term, Progress or Publish
	ID      string // of the message; with Publish the one it gets, or ""
	Delay   time.Duration
	Reason  string         // with Term
	Message broker.Message // with Publish
}

// commandFrame is a frame as it is spelled.
type commandFrame struct {
	Ack, Nack, Term, Progress *string
	Publish                   *struct {
		ID     string `json:"Id"`
		Delay  string
		Header map[string]string
		Body   []byte
	}
	Delay  *string
	Reason *string
}

func (f *commandFrame) decode(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(f); err != nil {
		return fmt.Errorf(`malformed frame: %s; expected {"Ack":"ID"}, {"Nack":"ID","Delay":"5s"}, {"Term":"ID"}, {"Progress":"ID"} or {"Publish":{…}}`, frameFault(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("malformed frame: something follows the object")
	}
	return nil
}

// frameFault says what is wrong with a frame in the words of who wrote it: the
// decoder's are those of Go.
func frameFault(err error) string {
	var wrong *json.UnmarshalTypeError
	var notBase64 base64.CorruptInputError
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends early"
	case errors.As(err, &notBase64):
		return "Body is not base64: " + notBase64.Error()
	case errors.As(err, &wrong):
		expected := "an object"
		switch wrong.Type.Kind() {
		case reflect.String:
			expected = "a string"
		case reflect.Slice:
			expected = "base64 in a string"
		}
		return fmt.Sprintf("%s is of type %s and not %s", cmp.Or(strings.Trim(wrong.Field, "."), "it"), wrong.Value, expected)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// verb returns the command of the last verb that is there, and how many are.
func (f *commandFrame) verb() (c command, verbs int) {
	for _, v := range []struct {
		verb string
		id   *string
	}{{"Ack", f.Ack}, {"Nack", f.Nack}, {"Term", f.Term}, {"Progress", f.Progress}} {
		if v.id != nil {
			c.Verb, c.ID = v.verb, *v.id
			verbs++
		}
	}
	if f.Publish != nil {
		c = command{Verb: "Publish", ID: f.Publish.ID, Message: broker.Message{Header: f.Publish.Header, Body: f.Publish.Body}}
		f.Delay = &f.Publish.Delay
		verbs++
	}
	return c, verbs
}

// parseCommand reads a frame: an object with one verb and what goes with it.
// An error may come with the ID it is about.
func parseCommand(data []byte) (command, error) {
	if id, ok := plainAck(data); ok {
		return command{Verb: "Ack", ID: id}, nil
	}
	var f commandFrame
	err := f.decode(data)
	c, verbs := f.verb()
	if err != nil {
		if len(c.ID) > maxID {
			c.ID = ""
		}
		return command{ID: c.ID}, err
	}
	switch {
	case verbs != 1:
		return c, fmt.Errorf("malformed frame: %d of Ack, Nack, Term, Progress and Publish, expected one", verbs)
	case c.ID == "" && c.Verb != "Publish":
		return c, fmt.Errorf("malformed frame: %s without an Id", c.Verb)
	case f.Delay != nil && c.Verb != "Nack" && c.Verb != "Publish":
		return c, fmt.Errorf("malformed frame: Delay goes with Nack, not %s", c.Verb)
	case f.Reason != nil && c.Verb != "Term":
		return c, fmt.Errorf("malformed frame: Reason goes with Term, not %s", c.Verb)
	}
	if f.Reason != nil {
		c.Reason = *f.Reason
	}
	if f.Delay != nil && *f.Delay != "" {
		if c.Delay, err = parseDelay(*f.Delay); err != nil {
			return c, fmt.Errorf("malformed frame: Delay: %w", err)
		}
	}
	return c, c.check()
}

// plainAck reads the commonest frame, {"Ack":"ID"} as most encoders write it
// and with an ID that needs no decoding.
func plainAck(data []byte) (id string, ok bool) {
	rest, begins := bytes.CutPrefix(data, []byte(`{"Ack":"`))
	rest, ends := bytes.CutSuffix(rest, []byte(`"}`))
	if !begins || !ends || len(rest) == 0 || len(rest) > maxID {
		return "", false
	}
	for _, c := range rest {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", false
		}
	}
	return string(rest), true
}

// check holds what a command carries against the limits.
func (c *command) check() error {
	if len(c.ID) > maxID {
		n := len(c.ID)
		c.ID = "" // it is not repeated
		return fmt.Errorf("malformed frame: an Id of %d bytes, at most %d", n, maxID)
	}
	if err := checkHeader(c.Message.Header); err != nil {
		return fmt.Errorf("malformed frame: %w", err)
	}
	return nil
}

func parseDelay(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("%q: expected a duration from 0s to %s, as in 500ms or 1h", text, maxDelay)
	}
	return d, nil
}
