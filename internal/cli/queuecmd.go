package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/micro/sidecar/internal/messaging"
)

// queueClient is the part of a client that is about durable queues and dead
// letters.
type queueClient interface {
	// Queues lists the queues of a topic, of all when it is "", and one when
	// queue is given.
	Queues(ctx context.Context, topic, queue string) ([]messaging.Queue, error)
	PurgeQueue(ctx context.Context, topic, queue string) (int, error)
	DeleteQueue(ctx context.Context, topic, queue string) error
	// DeadLetters lists dead letters behind the one with the ID after.
	DeadLetters(ctx context.Context, topic, after string, limit int) ([]messaging.Letter, error)
	// RetryDead and DropDead do it to one, or to all when id is "".
	RetryDead(ctx context.Context, topic, id string) (int, error)
	DropDead(ctx context.Context, topic, id string) (int, error)
}

// parentCommand is a command that only has commands of its own.
type parentCommand struct {
	name, short string
	commands    []command
}

// maxLetters is how many dead letters are asked for at a time.
const maxLetters = 1000

func messagingParents() []parentCommand {
	return []parentCommand{
		{"queue", "durable queues: list, show, purge, delete", []command{
			{use: "list [TOPIC]", short: "list the durable queues", examples: []string{"micro queue list", "micro queue list orders --output=json"}, run: listQueues},
			{use: "show TOPIC QUEUE", short: "show a durable queue", examples: []string{"micro queue show orders billing"}, run: showQueue},
			{use: "purge TOPIC QUEUE", short: "drop the messages that a queue holds", examples: []string{"micro queue purge orders billing"}, run: purgeQueue},
			{use: "delete TOPIC QUEUE", short: "delete a queue with all that it holds", examples: []string{"micro queue delete orders billing"}, run: deleteQueue},
		}},
		{"dead", "dead letters: list, show, retry, drop", []command{
			{use: "list TOPIC", short: "list the dead letters of a topic, oldest first", examples: []string{"micro dead list orders", "micro dead list orders --limit=1000 --output=json"}, own: []*setting{limitSetting()}, run: listDead},
			{use: "show TOPIC ID", short: "show a dead letter", examples: []string{"micro dead show orders 7"}, run: showDead},
			{use: "retry TOPIC [ID]", short: "deliver a dead letter, or all, to the queue that gave it up", examples: []string{"micro dead retry orders", "micro dead retry orders 7"}, run: retryDead},
			{use: "drop TOPIC [ID]", short: "drop a dead letter, or all with --all", examples: []string{"micro dead drop orders 7", "micro dead drop orders --all"}, own: []*setting{allSetting()}, run: dropDead},
		}},
	}
}

func idSetting() *setting {
	return &setting{
		name: "id", group: groupCommand, value: "ID", help: "makes publishing it again within two minutes harmless",
		only: true, set: one(parseName, func(c *Config) *string { return &c.messageID }),
	}
}

func delaySetting() *setting {
	return &setting{
		name: "delay", group: groupCommand, value: "DURATION", help: "deliver it that much later (durable brokers)",
		only: true, set: one(parsePositive, func(c *Config) *time.Duration { return &c.delay }),
	}
}

func ackSetting() *setting {
	return &setting{
		name: "ack", group: groupCommand, help: "take the messages of a durable queue and acknowledge each",
		only: true, set: one(parseBool, func(c *Config) *bool { return &c.ack }),
	}
}

func limitSetting() *setting {
	return &setting{
		name: "limit", group: groupCommand, value: "N", def: "100", help: "how many at most",
		only: true, set: one(parseInt(1, maxLetters), func(c *Config) *int { return &c.limit }),
	}
}

func allSetting() *setting {
	return &setting{
		name: "all", group: groupCommand, help: "all of them",
		only: true, set: one(parseBool, func(c *Config) *bool { return &c.all }),
	}
}

func listQueues(ctx context.Context, i *invocation) error {
	topic := ""
	if len(i.args) > 0 {
		topic = i.args[0]
	}
	return i.printQueues(ctx, topic, "")
}

func showQueue(ctx context.Context, i *invocation) error {
	return i.printQueues(ctx, i.args[0], i.args[1])
}

func (i *invocation) printQueues(ctx context.Context, topic, queue string) error {
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		queues, err := c.Queues(ctx, topic, queue)
		switch {
		case err != nil:
			return err
		case i.json() && queue != "" && len(queues) == 1:
			return printJSON(i.out, queues[0])
		case i.json():
			return printJSON(i.out, queues)
		case queue != "" && len(queues) == 1:
			return printQueue(i.out, queues[0])
		}
		w := tabwriter.NewWriter(i.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TOPIC\tQUEUE\tSTATE\tLAG\tHELD\tOLDEST\tLAST SEEN")
		for _, q := range queues {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n",
				visible(q.Topic), visible(q.Queue), q.State, q.Lag, q.Held, timeText(q.Oldest), timeText(q.LastSeen))
		}
		return w.Flush()
	})
}

func printQueue(out io.Writer, q messaging.Queue) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	inFlight, expires := "no limit", "never"
	if q.MaxInFlight > 0 {
		inFlight = strconv.Itoa(q.MaxInFlight)
	}
	if q.Expires != "" {
		expires = "after " + q.Expires + " without a subscriber"
	}
	for _, line := range [][2]string{
		{"topic", visible(q.Topic)}, {"queue", visible(q.Queue)}, {"state", q.State},
		{"lag", strconv.Itoa(q.Lag)}, {"held", strconv.Itoa(q.Held)},
		{"oldest message", timeText(q.Oldest)}, {"last seen", timeText(q.LastSeen)},
		{"ack wait", q.AckWait}, {"in flight at most", inFlight}, {"expires", expires},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	return w.Flush()
}

// timeText writes a moment, "-" for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func purgeQueue(ctx context.Context, i *invocation) error {
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		n, err := c.PurgeQueue(ctx, i.args[0], i.args[1])
		return i.printCount(n, "purged", err)
	})
}

func deleteQueue(ctx context.Context, i *invocation) error {
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		return c.DeleteQueue(ctx, i.args[0], i.args[1])
	})
}

// printCount says how many messages something was done to.
func (i *invocation) printCount(n int, what string, err error) error {
	if err != nil {
		return err
	}
	if i.json() {
		return printJSON(i.out, map[string]int{what: n})
	}
	_, err = fmt.Fprintf(i.out, "%s %d\n", what, n)
	return err
}

func listDead(ctx context.Context, i *invocation) error {
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		letters, err := c.DeadLetters(ctx, i.args[0], "", i.cfg.limit)
		if err != nil {
			return err
		}
		if i.json() {
			return printJSON(i.out, letters)
		}
		w := tabwriter.NewWriter(i.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tTOPIC\tQUEUE\tATTEMPTS\tGIVEN UP\tREASON")
		for _, l := range letters {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", visible(l.ID), visible(l.Topic), visible(l.Queue), l.Attempts, visible(l.Last), visible(l.Reason))
		}
		return w.Flush()
	})
}

func showDead(ctx context.Context, i *invocation) error {
	topic, id := i.args[0], i.args[1]
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		for after := ""; ; {
			letters, err := c.DeadLetters(ctx, topic, after, maxLetters)
			if err != nil {
				return err
			}
			for _, l := range letters {
				if l.ID == id {
					return i.printLetter(l)
				}
				after = l.ID
			}
			if len(letters) < maxLetters {
				return fmt.Errorf("no dead letter %s of topic %s", visible(id), visible(topic))
			}
		}
	})
}

func (i *invocation) printLetter(l messaging.Letter) error {
	if i.json() {
		return printJSON(i.out, l)
	}
	w := tabwriter.NewWriter(i.out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"id", l.ID}, {"topic", l.Topic}, {"queue", l.Queue}, {"reason", l.Reason},
		{"attempts", strconv.Itoa(l.Attempts)}, {"stored", l.First}, {"given up", l.Last},
		{"header", metadataText(l.Header)}, {"body", messageLine(received{Body: l.Body})},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], visible(line[1]))
	}
	return w.Flush()
}

func retryDead(ctx context.Context, i *invocation) error {
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		n, err := c.RetryDead(ctx, i.args[0], i.optional(1))
		return i.printCount(n, "retried", err)
	})
}

func dropDead(ctx context.Context, i *invocation) error {
	id := i.optional(1)
	if (id == "") != i.cfg.all {
		return errors.New("which dead letters: an ID, or --all")
	}
	return i.withTimeout(ctx, true, func(ctx context.Context, c client) error {
		n, err := c.DropDead(ctx, i.args[0], id)
		return i.printCount(n, "dropped", err)
	})
}

// optional is an argument that may be left out.
func (i *invocation) optional(n int) string {
	if n < len(i.args) {
		return i.args[n]
	}
	return ""
}

// admin looks at queues through the engine.
func (d *direct) admin() *messaging.Admin {
	return &messaging.Admin{Broker: d.engines.Broker, Timeout: closeTimeout}
}

// Queues asks the broker.
func (d *direct) Queues(ctx context.Context, topic, queue string) ([]messaging.Queue, error) {
	return d.admin().Queues(ctx, topic, queue)
}

// PurgeQueue asks the broker.
func (d *direct) PurgeQueue(ctx context.Context, topic, queue string) (int, error) {
	return d.admin().Purge(ctx, topic, queue)
}

// DeleteQueue asks the broker.
func (d *direct) DeleteQueue(ctx context.Context, topic, queue string) error {
	return d.admin().Delete(ctx, topic, queue)
}

// DeadLetters asks the broker.
func (d *direct) DeadLetters(ctx context.Context, topic, after string, limit int) ([]messaging.Letter, error) {
	return d.admin().DeadLetters(ctx, topic, after, limit)
}

// RetryDead asks the broker.
func (d *direct) RetryDead(ctx context.Context, topic, id string) (int, error) {
	return d.admin().Retry(ctx, topic, id)
}

// DropDead asks the broker.
func (d *direct) DropDead(ctx context.Context, topic, id string) (int, error) {
	return d.admin().Drop(ctx, topic, id)
}

// broker asks the sidecar's /broker.
func (p *proxied) broker(ctx context.Context, method string, query url.Values, out any) error {
	for name, values := range query {
		if values[0] == "" {
			delete(query, name)
		}
	}
	return p.ask(ctx, method, p.base.endpoint("broker", query), nil, out)
}

// Queues asks the sidecar.
func (p *proxied) Queues(ctx context.Context, topic, queue string) ([]messaging.Queue, error) {
	var queues []messaging.Queue
	err := p.broker(ctx, http.MethodGet, url.Values{"queues": {"true"}, "topic": {topic}, "queue": {queue}}, &queues)
	return queues, err
}

// PurgeQueue asks the sidecar.
func (p *proxied) PurgeQueue(ctx context.Context, topic, queue string) (int, error) {
	var answer struct{ Purged int }
	err := p.broker(ctx, http.MethodDelete, url.Values{"purge": {"true"}, "topic": {topic}, "queue": {queue}}, &answer)
	return answer.Purged, err
}

// DeleteQueue asks the sidecar.
func (p *proxied) DeleteQueue(ctx context.Context, topic, queue string) error {
	return p.broker(ctx, http.MethodDelete, url.Values{"topic": {topic}, "queue": {queue}}, nil)
}

// DeadLetters asks the sidecar.
func (p *proxied) DeadLetters(ctx context.Context, topic, after string, limit int) ([]messaging.Letter, error) {
	var letters []messaging.Letter
	query := url.Values{"dead": {"true"}, "topic": {topic}, "after": {after}, "limit": {strconv.Itoa(limit)}}
	err := p.broker(ctx, http.MethodGet, query, &letters)
	return letters, err
}

// RetryDead asks the sidecar.
func (p *proxied) RetryDead(ctx context.Context, topic, id string) (int, error) {
	var answer struct{ Retried int }
	err := p.broker(ctx, http.MethodPost, url.Values{"dead": {"retry"}, "topic": {topic}, "id": {id}}, &answer)
	return answer.Retried, err
}

// DropDead asks the sidecar.
func (p *proxied) DropDead(ctx context.Context, topic, id string) (int, error) {
	query := url.Values{"dead": {"true"}, "topic": {topic}, "id": {id}}
	if id == "" {
		query.Set("all", "true")
	}
	var answer struct{ Dropped int }
	err := p.broker(ctx, http.MethodDelete, query, &answer)
	return answer.Dropped, err
}
