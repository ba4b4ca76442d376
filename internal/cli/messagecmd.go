package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/micro/sidecar/broker"
)

func publishCommand() command {
	return command{
		use: "publish TOPIC [BODY|-]", short: "publish a message",
		long: "BODY is sent as it is; - reads it from the standard input.",
		own:  []*setting{headerSetting(), idSetting(), delaySetting()}, groups: clientGroups, run: publish,
	}
}

func publish(ctx context.Context, i *invocation) error {
	var body []byte
	if len(i.args) > 1 {
		var err error
		if body, err = i.text(ctx, i.args[1]); err != nil {
			return err
		}
	}
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		return c.Publish(ctx, i.args[0], broker.Message{Header: i.cfg.Headers, Body: body}, publishing{i.cfg.messageID, i.cfg.delay})
	})
}

func subscribeCommand() command {
	return command{
		use: "subscribe TOPIC", short: "print the messages of a topic as they come",
		long: "A message is a line: its body when that is one line of text, else the body in base64.\nWith --output json it is {\"Header\":{…},\"Body\":\"<base64>\"}.\nWith --ack the queue is durable: its messages wait, and each is acknowledged when it was printed.",
		own:  []*setting{queueSetting(), ackSetting()}, groups: clientGroups, run: subscribe,
	}
}

func subscribe(ctx context.Context, i *invocation) error {
	topic := i.args[0]
	if i.cfg.ack && i.cfg.Queue == "" {
		return errors.New("--ack needs --queue, the durable queue to take messages from")
	}
	return i.with(ctx, true, func(c client) error {
		return ended(ctx, c.Subscribe(ctx, subscription{topic, i.cfg.Queue, i.cfg.ack},
			func() { i.say("subscribed to %s", visible(topic)) },
			func(m received) error {
				if i.json() {
					if m.Header == nil {
						m.Header = map[string]string{}
					}
					return printJSON(i.out, m) // as GET /broker sends it
				}
				_, err := fmt.Fprintln(i.out, messageLine(m))
				return err
			}))
	})
}
