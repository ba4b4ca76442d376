package balance

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Limit bounds how many requests wait for an answer at a time. A quarter as
// many more may queue for a moment; who comes beyond that is refused. Make it
// with [NewLimit].
//
// Who has entered, or queues, is one number: those beyond max queue. Who
// leaves while somebody queues owes one of them a turn, and who gives up
// queueing may do so only while there are more of them than turns owed. So
// nothing but that number is touched while there is room.
type Limit struct {
	max, most int64 // inside; and with those that queue
	count     atomic.Int64
	refused   atomic.Int64
	turns     chan struct{}
}

const (
	// queueShare of the limit may queue, and one request at least.
	queueShare = 4
	// queueTime is how long a request queues.
	queueTime = 100 * time.Millisecond
	// retryLater is what those are told that are refused.
	retryLater = time.Second
)

// NewLimit returns a limit of n requests, n being positive.
func NewLimit(n int) *Limit {
	queue := max(n/queueShare, 1)
	return &Limit{max: int64(n), most: int64(n + queue), turns: make(chan struct{}, n+queue)}
}

// Enter waits for a place and takes it. Its errors are an *[httpmsg.Error] of
// status 429, and the context's when that ends before. Who has entered must
// [Limit.Leave].
func (l *Limit) Enter(ctx context.Context) error {
	for {
		n := l.count.Load()
		if n >= l.most {
			return l.refuse()
		}
		if l.count.CompareAndSwap(n, n+1) {
			if n < l.max {
				return nil
			}
			return l.queue(ctx)
		}
	}
}

// queue waits for a turn.
func (l *Limit) queue(ctx context.Context) error {
	timer := time.NewTimer(queueTime)
	defer timer.Stop()
	select {
	case <-l.turns:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	for {
		n := l.count.Load()
		if n <= l.max { // somebody owes a turn to each that queues
			<-l.turns
			return nil
		}
		if l.count.CompareAndSwap(n, n-1) {
			if err := ctx.Err(); err != nil {
				return err
			}
			return l.refuse()
		}
	}
}

// Leave gives the place up.
func (l *Limit) Leave() {
	if l.count.Add(-1) >= l.max {
		l.turns <- struct{}{}
	}
}

func (l *Limit) refuse() error {
	l.refused.Add(1)
	return &httpmsg.Error{
		Status: http.StatusTooManyRequests, RetryAfter: retryLater,
		Detail: "too many requests are waiting for an answer (--max_concurrency)",
	}
}

// LimitState is how full a limit is.
type LimitState struct {
	Max, Active, Waiting int64
	Refused              int64 // so far
}

// State returns the limit's state now; that of a nil Limit is all zero.
func (l *Limit) State() LimitState {
	if l == nil {
		return LimitState{}
	}
	n := l.count.Load()
	return LimitState{Max: l.max, Active: min(n, l.max), Waiting: max(n-l.max, 0), Refused: l.refused.Load()}
}
