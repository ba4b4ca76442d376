package messaging

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/socket"
)

// abandonedAfter is how long a queue has no member before it is called
// abandoned.
const abandonedAfter = time.Hour

// Queue is a durable queue as it is shown.
type Queue struct {
	Topic       string    `json:"topic"`
	Queue       string    `json:"queue"`
	State       string    `json:"state"` // active, idle or abandoned
	Lag         int       `json:"lag"`
	Held        int       `json:"held"`
	Members     int       `json:"members"`
	Oldest      time.Time `json:"oldest,omitzero"`
	LastSeen    time.Time `json:"last_seen,omitzero"`
	AckWait     string    `json:"ack_wait"`
	MaxInFlight int       `json:"max_in_flight,omitempty"`
	Expires     string    `json:"expires,omitempty"`
}

// Letter is a dead letter as it is shown: the message as it was, and why it is
// here.
type Letter struct {
	ID       string            `json:"id"`
	Topic    string            `json:"topic"` // what the message was published to
	Queue    string            `json:"queue"`
	Reason   string            `json:"reason"`
	Attempts int               `json:"attempts"`
	First    string            `json:"first"`
	Last     string            `json:"last"`
	Header   map[string]string `json:"header"`
	Body     []byte            `json:"body"`
}

// Admin looks at durable queues and dead letters and manages them.
type Admin struct {
	Broker broker.Broker
	// Timeout bounds one call of the broker.
	Timeout time.Duration
}

// queues returns the broker as one whose queues can be managed.
func (a *Admin) queues() (broker.Queues, error) {
	q, ok := a.Broker.(broker.Queues)
	if !ok {
		return nil, fmt.Errorf("this broker has no durable queues that can be looked at: %w", errors.ErrUnsupported)
	}
	return q, nil
}

// Queues lists the queues, those of one topic when it is not "", and one when
// queue is not "" either.
func (a *Admin) Queues(ctx context.Context, topic, queue string) ([]Queue, error) {
	q, err := a.queues()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	var infos []broker.QueueInfo
	if topic != "" && queue != "" {
		info, err := q.Queue(ctx, topic, queue)
		if err != nil {
			return nil, err //nolint:wrapcheck // it says what it did
		}
		infos = append(infos, info)
	} else if infos, err = q.Queues(ctx); err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}
	shown := []Queue{}
	for _, i := range infos {
		if i.Topic == delayedTopic && topic == "" || topic != "" && i.Topic != topic {
			continue
		}
		shown = append(shown, show(i))
	}
	return shown, nil
}

func show(i broker.QueueInfo) Queue {
	q := Queue{
		Topic: i.Topic, Queue: i.Queue, State: "active", Lag: i.Lag, Held: i.Held, Members: i.Members,
		Oldest: i.Oldest, LastSeen: i.LastSeen, AckWait: i.AckWait.String(), MaxInFlight: i.MaxInFlight,
	}
	if i.Members == 0 {
		q.State = "idle"
		if i.Queue != DeadQueue && !i.LastSeen.IsZero() && time.Since(i.LastSeen) > abandonedAfter {
			q.State = "abandoned"
		}
	}
	if i.Expires > 0 {
		q.Expires = i.Expires.String()
	}
	return q
}

// Purge drops what a queue holds and says how many messages that were.
func (a *Admin) Purge(ctx context.Context, topic, queue string) (int, error) {
	q, err := a.queues()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	return q.Purge(ctx, topic, queue) //nolint:wrapcheck // it says what it did
}

// Delete removes a queue with all that it holds.
func (a *Admin) Delete(ctx context.Context, topic, queue string) error {
	q, err := a.queues()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	return q.Delete(ctx, topic, queue) //nolint:wrapcheck // it says what it did
}

// deadTopic finds the topic that holds the dead letters of topic: <topic>.dead,
// or topic itself when it is where dead letters were sent to.
func (a *Admin) deadTopic(ctx context.Context, q broker.Queues, topic string) (string, error) {
	for _, candidate := range []string{DeadTopic(topic), topic} {
		_, err := q.Queue(ctx, candidate, DeadQueue)
		if err == nil {
			return candidate, nil
		}
		if !errors.Is(err, broker.ErrNoQueue) {
			return "", err //nolint:wrapcheck // it says what it did
		}
	}
	return "", nil
}

// DeadLetters lists up to limit dead letters of a topic, oldest first, beginning
// behind the one with the ID after. A topic that never had one has none.
func (a *Admin) DeadLetters(ctx context.Context, topic, after string, limit int) ([]Letter, error) {
	letters := []Letter{}
	q, err := a.queues()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	dead, err := a.deadTopic(ctx, q, topic)
	if err != nil || dead == "" {
		return letters, err
	}
	all, err := q.Browse(ctx, dead, DeadQueue, after, limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}
	for _, m := range all {
		letters = append(letters, letter(m))
	}
	return letters, nil
}

// letter divides a dead letter's header into the message's and what was added.
func letter(m broker.Stored) Letter {
	l := Letter{ID: m.ID, Header: map[string]string{}, Body: m.Body}
	if l.Body == nil {
		l.Body = []byte{}
	}
	for k, v := range m.Header {
		switch k {
		case deadTopicField:
			l.Topic = v
		case deadQueueField:
			l.Queue = v
		case deadReasonField:
			l.Reason = v
		case deadAttemptsField:
			if n, err := strconv.Atoi(v); err == nil && n > 0 { // 0 says that nobody knows
				l.Attempts = n
			}
		case deadFirstField:
			l.First = v
		case deadLastField:
			l.Last = v
		case deadIDField:
		default:
			l.Header[k] = v
		}
	}
	return l
}

// Retry publishes dead letters to their topics again and removes them: the one
// with the ID, or all that are there when id is "". It says how many. What was
// published and not removed is published once more by the next Retry.
func (a *Admin) Retry(ctx context.Context, topic, id string) (int, error) {
	return a.eachDead(ctx, topic, id, func(ctx context.Context, l Letter) error {
		if l.Topic == "" {
			return fmt.Errorf("dead letter %s does not say where it belongs", l.ID)
		}
		if l.Queue != "" {
			l.Header[onlyQueueField] = l.Queue
		}
		return publishOnce(ctx, a.Broker, l.Topic, "retry "+l.ID+" "+l.Last, broker.Message{Header: l.Header, Body: l.Body})
	})
}

// Drop removes dead letters: the one with the ID, or all when id is "".
func (a *Admin) Drop(ctx context.Context, topic, id string) (int, error) {
	return a.eachDead(ctx, topic, id, func(context.Context, Letter) error { return nil })
}

// eachDead removes dead letters after do has succeeded on them.
func (a *Admin) eachDead(ctx context.Context, topic, id string, do func(context.Context, Letter) error) (int, error) {
	const page = 50
	q, err := a.queues()
	if err != nil {
		return 0, err
	}
	dead, err := a.deadTopic(ctx, q, topic)
	if err != nil {
		return 0, err
	}
	if dead == "" {
		if id != "" {
			return 0, fmt.Errorf("dead letter %s of topic %q: %w", id, topic, broker.ErrNoMessage)
		}
		return 0, nil
	}
	// What dies again meanwhile is behind the end.
	end := time.Now()
	done, after := 0, ""
	for {
		letters, err := q.Browse(ctx, dead, DeadQueue, after, page)
		if err != nil {
			return done, err //nolint:wrapcheck // it says what it did
		}
		for _, m := range letters {
			after = m.ID
			if m.At.After(end) {
				return done, nil
			}
			if id != "" && m.ID != id {
				continue
			}
			if err := do(ctx, letter(m)); err != nil {
				return done, err
			}
			if err := q.Remove(ctx, dead, DeadQueue, m.ID); err != nil && !errors.Is(err, broker.ErrNoMessage) {
				return done, err //nolint:wrapcheck // it says what it did
			}
			done++
			if id != "" {
				return done, nil
			}
		}
		if len(letters) < page {
			break
		}
	}
	if id != "" {
		return done, fmt.Errorf("dead letter %s of topic %q: %w", id, topic, broker.ErrNoMessage)
	}
	return done, nil
}

// admin is Admin over this broker, or why there is none.
func (m *Messaging) admin() (*Admin, error) {
	if _, err := m.durable(); err != nil {
		return nil, err
	}
	return &Admin{Broker: m.o.Broker, Timeout: m.o.Timeout}, nil
}

// serveGet subscribes, or shows queues or dead letters.
func (m *Messaging) serveGet(w http.ResponseWriter, r *http.Request) error {
	v, err := parseValues(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if socket.Wanted(r) || !v.has("queues") && !v.has("dead") {
		q, err := v.query()
		if err != nil {
			return err
		}
		return m.serveSubscribe(w, r, q)
	}
	a, err := m.admin()
	if err != nil {
		return refusal(err)
	}
	var shown any
	if v.has("queues") {
		shown, err = a.Queues(r.Context(), v["topic"], v["queue"])
	} else {
		shown, err = m.showDead(r.Context(), a, v)
	}
	if bad := (*httpmsg.Error)(nil); errors.As(err, &bad) {
		return bad
	}
	if err != nil {
		return refusal(err)
	}
	return writeJSON(w, http.StatusOK, shown)
}

func (m *Messaging) showDead(ctx context.Context, a *Admin, v values) (any, error) {
	const defaultLimit, maxLimit = 100, 1000
	topic, err := v.topic()
	if err != nil {
		return nil, err
	}
	limit := defaultLimit
	if v.has("limit") {
		if limit, err = strconv.Atoi(v["limit"]); err != nil || limit < 1 || limit > maxLimit {
			return nil, httpmsg.Errorf(http.StatusBadRequest, "limit=%s: expected a number from 1 to %d", v["limit"], maxLimit)
		}
	}
	return a.DeadLetters(ctx, topic, v["after"], limit)
}

// servePost publishes, or publishes dead letters again.
func (m *Messaging) servePost(w http.ResponseWriter, r *http.Request) error {
	v, err := parseValues(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if v.has("dead") {
		if v["dead"] != "retry" {
			return httpmsg.Errorf(http.StatusBadRequest, "dead=%s: expected retry", v["dead"])
		}
		return m.manageDead(w, r, v, "retried", (*Admin).Retry)
	}
	q, err := v.query()
	if err != nil {
		return err
	}
	if q.batch != "" {
		return m.serveBatch(w, r, q)
	}
	return m.servePublish(w, r, q)
}

// serveDelete drops dead letters, or purges or deletes a queue.
func (m *Messaging) serveDelete(w http.ResponseWriter, r *http.Request) error {
	v, err := parseValues(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if v.has("dead") {
		all, err := v.flag("all")
		if err != nil {
			return err
		}
		if (v["id"] == "") != all {
			return httpmsg.Errorf(http.StatusBadRequest, "which dead letters: expected id=ID or all=true")
		}
		return m.manageDead(w, r, v, "dropped", (*Admin).Drop)
	}
	if v["queue"] == "" {
		return wrongMethod(w, r)
	}
	topic, err := v.topic()
	if err != nil {
		return err
	}
	purge, err := v.flag("purge") // a mistake here must not delete
	if err != nil {
		return err
	}
	a, err := m.admin()
	if err != nil {
		return refusal(err)
	}
	if purge {
		n, err := a.Purge(r.Context(), topic, v["queue"])
		if err != nil {
			return refusal(err)
		}
		return writeJSON(w, http.StatusOK, map[string]int{"purged": n})
	}
	if err := a.Delete(r.Context(), topic, v["queue"]); err != nil {
		return refusal(err)
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

func (m *Messaging) manageDead(w http.ResponseWriter, r *http.Request, v values, name string, do func(*Admin, context.Context, string, string) (int, error)) error {
	topic, err := v.topic()
	if err != nil {
		return err
	}
	a, err := m.admin()
	if err != nil {
		return refusal(err)
	}
	n, err := do(a, r.Context(), topic, v["id"])
	if err != nil {
		return refusal(err)
	}
	return writeJSON(w, http.StatusOK, map[string]int{name: n})
}
