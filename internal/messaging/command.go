package messaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// parseCommand reads a frame: an object with one verb and what goes with it.
// An error may come with the ID it is about.
func parseCommand(data []byte) (command, error) {
	var f struct {
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
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return command{}, fmt.Errorf(`malformed frame: %w; expected {"Ack":"ID"}, {"Nack":"ID","Delay":"5s"}, {"Term":"ID"}, {"Progress":"ID"} or {"Publish":{…}}`, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return command{}, errors.New("malformed frame: something follows the object")
	}
	var c command
	verbs := 0
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
	if len(c.ID) > maxID {
		return command{}, fmt.Errorf("malformed frame: an Id of %d bytes, at most %d", len(c.ID), maxID)
	}
	if err := checkHeader(c.Message.Header); err != nil {
		return c, fmt.Errorf("malformed frame: %w", err)
	}
	if f.Delay == nil || *f.Delay == "" {
		return c, nil
	}
	var err error
	if c.Delay, err = parseDelay(*f.Delay); err != nil {
		return c, fmt.Errorf("malformed frame: Delay: %w", err)
	}
	return c, nil
}

func parseDelay(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("%q: expected a duration from 0s to %s, as in 500ms or 1h", text, maxDelay)
	}
	return d, nil
}
