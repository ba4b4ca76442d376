package consul

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/internal/sleep"
)

// Times of a blocking query.
const (
	// waitTime is how long the agent holds a query when nothing changes. It
	// adds up to a sixteenth; margin on top tells a slow agent from a dead one.
	waitTime   = time.Minute
	waitMargin = 15 * time.Second
	// minInterval is the least time between two queries, so that a service
	// that changes all the time, or an agent that never blocks, costs little.
	minInterval = 50 * time.Millisecond
	// entryCost is added to it for each entry of the last answer: one with all
	// the checks of a large cluster has many megabytes.
	entryCost = 50 * time.Microsecond
	// Pauses after failures double from the first to the last.
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// poller keeps one blocking query going until its context ends, through
// whatever happens to the agent.
type poller struct {
	log   *slog.Logger
	what  string // for the log
	pulse *pulse
	// ask sends the query and, if it succeeded, takes in the answer. fresh
	// says that changes may have been missed since the last one.
	ask func(ctx context.Context, q *api.QueryOptions, fresh bool) (answer, error)
}

// answer is what matters of one to a poller.
type answer struct {
	index   uint64
	entries int
}

// run returns the error of ctx, and no other.
func (p poller) run(ctx context.Context) error {
	index, fresh, failing := uint64(0), true, false
	backoff := firstBackoff
	for {
		begun, era := time.Now(), p.pulse.now()
		last, err := p.once(ctx, era, index, fresh)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := minInterval + time.Duration(last.entries)*entryCost - time.Since(begun)
		switch {
		case err != nil && era.Err() != nil: // nobody knows whether the query was alive
			index, fresh = 0, true
			pause = rand.N(spread)
		case err != nil:
			if !failing {
				p.log.Warn("consul cannot be watched, trying again", "what", p.what, "error", err)
			}
			// Whoever answers next may be another server, or an empty one.
			index, fresh, failing = 0, true, true
			pause = backoff/2 + rand.N(backoff)
			backoff = min(2*backoff, lastBackoff)
		default:
			if failing {
				p.log.Info("consul is watched again", "what", p.what)
			}
			// An index that went backwards is that of another history. One
			// of 0 would not block. Both as Consul's documentation asks.
			fresh = last.index < index
			if index = max(last.index, 1); fresh {
				index = 0
			}
			failing, backoff = false, firstBackoff
		}
		if err := sleep.For(ctx, pause); err != nil {
			return err
		}
	}
}

// once gives the query up when the era ends.
func (p poller) once(ctx, era context.Context, index uint64, fresh bool) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTime+waitTime/16+waitMargin)
	defer cancel()
	defer context.AfterFunc(era, cancel)()
	return p.ask(ctx, &api.QueryOptions{WaitIndex: index, WaitTime: waitTime}, fresh)
}
