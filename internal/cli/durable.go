package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"strings"

	"github.com/micro/sidecar/broker"
)

// cliPrefetch is how many messages of a durable queue a command holds.
const cliPrefetch = 16

// subscribeDurable takes the messages of a durable queue from the broker.
func (d *direct) subscribeDurable(ctx context.Context, s subscription, live func(), emit func(received) error) (err error) {
	durable, ok := d.engines.Broker.(broker.Durable)
	if !ok {
		return fmt.Errorf("the %s broker keeps no messages: it has no durable queues", d.engines.BrokerName)
	}
	member, err := durable.Join(ctx, s.topic, s.queue, broker.JoinOptions{Prefetch: cliPrefetch})
	if err != nil {
		return err
	}
	defer func() {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, member.Close(leaving))
	}()
	live()
	for {
		h, err := member.Receive(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		m := receivedFrom(s.topic, h.Delivery)
		m.ID, m.Attempt = h.ID, h.Attempt
		if err := emit(m); err != nil {
			return err
		}
		if err := h.Ack(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// receivedFrom is a delivery for a subscription to topic.
func receivedFrom(topic string, d broker.Delivery) received {
	m := received{Header: d.Header, Body: d.Body}
	if d.Topic != topic {
		m.Topic = d.Topic
	}
	return m
}

// withField adds a field to a header that is the caller's.
func withField(header map[string]string, name, value string) map[string]string {
	header = maps.Clone(header)
	if header == nil {
		header = map[string]string{}
	}
	header[name] = value
	return header
}

// cloudEventLine writes a CloudEvent of version 1.0 on one line, with its type,
// source and id in front of the data: one in binary mode, whose attributes are
// header fields, or in structured mode, which is JSON.
func cloudEventLine(m received) (string, bool) {
	fields := map[string]string{}
	for name, value := range m.Header {
		fields[strings.ToLower(name)] = value
	}
	if strings.HasPrefix(fields["ce-specversion"], "1.") {
		return fmt.Sprintf("%s %s %s: %s", visible(fields["ce-type"]), visible(fields["ce-source"]), visible(fields["ce-id"]),
			bodyLine(m.Body)), true
	}
	if kind, _, err := mime.ParseMediaType(fields["content-type"]); err != nil || kind != "application/cloudevents+json" {
		return "", false
	}
	var event struct {
		Specversion, Type, Source, ID string
		Data                          json.RawMessage
		DataBase64                    []byte `json:"data_base64"`
	}
	if json.Unmarshal(m.Body, &event) != nil || !strings.HasPrefix(event.Specversion, "1.") {
		return "", false
	}
	data := event.DataBase64
	if event.Data != nil {
		var line bytes.Buffer
		if json.Compact(&line, event.Data) == nil {
			data = line.Bytes()
		}
	}
	return fmt.Sprintf("%s %s %s: %s", visible(event.Type), visible(event.Source), visible(event.ID), bodyLine(data)), true
}
