package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/sleep"
)

// readDirect reads the entries whose keys match with a batched direct get
// (NATS ADR-31), which costs the server what it finds. A watch, which it takes
// the place of, costs what is in the whole bucket: with 10,000 services of 10
// nodes, tens of milliseconds. ok is false when the server has no such answer:
// it is older, more than 1,024 keys match, or the bucket is not there.
//
// Where the bucket is replicated any of its servers answers, and one that lags
// behind is asked again: no answer is older than what was written, read or
// reported here before.
func (r *Registry) readDirect(ctx context.Context, b *store, pattern string) (entries []*entry, ok bool, err error) {
	least, pause := r.seen.Load(), time.Millisecond
	for {
		entries, upTo, ok, err := r.askDirect(ctx, pattern)
		if err == nil && ok && upTo == 0 && b.replicated && least > 0 {
			upTo, err = r.nothing(ctx, pattern, least)
		}
		if err != nil || !ok || !b.replicated || upTo >= least {
			r.saw(upTo)
			return entries, ok, err
		}
		if err := sleep.For(ctx, pause); err != nil {
			return nil, false, err
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// nothing asks the server that takes the writes whether there is really
// nothing that matches: such an answer does not tell how old it is. It returns
// least if so, else 0.
func (r *Registry) nothing(ctx context.Context, pattern string, least uint64) (uint64, error) {
	request, err := json.Marshal(map[string]string{"last_by_subj": "$KV." + r.bucket + "." + pattern})
	if err != nil {
		return 0, err
	}
	answer, err := r.js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+r.bucket, request)
	if err != nil {
		return 0, err
	}
	var refusal struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &refusal); err != nil {
		return 0, fmt.Errorf("message get: %w", err)
	}
	switch {
	case refusal.Error == nil: // something does: ask again
		return 0, nil
	case refusal.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return least, nil
	}
	return 0, refusal.Error
}

// askDirect asks once. upTo is the revision that the answer reflects, 0 when
// nothing matches.
func (r *Registry) askDirect(ctx context.Context, pattern string) (entries []*entry, upTo uint64, ok bool, err error) {
	prefix := "$KV." + r.bucket + "."
	request, err := json.Marshal(map[string][]string{"multi_last": {prefix + pattern}})
	if err != nil {
		return nil, 0, false, err
	}
	conn := r.js.Conn()
	answers, err := conn.SubscribeSync(conn.NewInbox())
	if err != nil {
		return nil, 0, false, err
	}
	defer func() { _ = answers.Unsubscribe() }() // fails only when the connection is gone
	if err := conn.PublishRequest("$JS.API.DIRECT.GET.KV_"+r.bucket, answers.Subject, request); err != nil {
		return nil, 0, false, err
	}
	for {
		m, err := answers.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, gonats.ErrNoResponders): // the bucket was removed, or takes no direct get
			return nil, 0, false, nil
		case err != nil:
			return nil, 0, false, err
		}
		switch status := m.Header.Get("Status"); {
		case status == "204" && m.Header.Get("Nats-Num-Pending") == "0": // the end
			upTo, err := strconv.ParseUint(m.Header.Get("Nats-UpTo-Sequence"), 10, 64)
			return entries, upTo, err == nil, nil
		case status == "404" && m.Header.Get("Description") == "No Results":
			return nil, 0, true, nil
		case status != "":
			return nil, 0, false, nil
		}
		e, err := r.decodeDirect(m, prefix)
		if err != nil {
			return nil, 0, false, err
		}
		if e != nil {
			entries = append(entries, e)
		}
	}
}

// decodeDirect returns what a message of a direct get holds, nil when it is no
// registration.
func (r *Registry) decodeDirect(m *gonats.Msg, prefix string) (*entry, error) {
	if m.Header.Get("KV-Operation") != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "" {
		return nil, nil // the mark of one that was removed
	}
	key, found := strings.CutPrefix(m.Header.Get(jetstream.SubjectHeader), prefix)
	revision, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if !found || err != nil {
		return nil, fmt.Errorf("direct get: subject %q, sequence %q", m.Header.Get(jetstream.SubjectHeader), m.Header.Get(jetstream.SequenceHeader))
	}
	e, err := decode(key, m.Data)
	if err != nil {
		r.complain(key, err)
		return nil, nil
	}
	e.revision = revision
	r.lives.correct(e)
	return e, nil
}
