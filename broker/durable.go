package broker

import (
	"context"
	"errors"
	"time"
)

// DefaultAckWait is how long a member of a new durable queue has for a message
// when [QueueOptions] leave it open.
const DefaultAckWait = 30 * time.Second

// OnceWithin is how long [Deduplicator] remembers an ID.
const OnceWithin = 2 * time.Minute

var (
	// ErrFull is returned by Publish when the engine's size limit is reached or
	// its disk is full. Nothing that was stored is dropped for the new message.
	ErrFull = errors.New("the broker is full")
	// ErrNoQueue is returned for a durable queue that does not exist.
	ErrNoQueue = errors.New("no such durable queue")
	// ErrNoMessage is returned for a message that the queue does not hold.
	ErrNoMessage = errors.New("no such message in the queue")
	// ErrSettled is returned by the methods of a [Held] that was settled before.
	ErrSettled = errors.New("the message was settled before")
	// ErrLapsed is returned by the methods of a [Held] whose time has run out:
	// the engine gives the message to a member of the queue again.
	ErrLapsed = errors.New("the time to acknowledge the message has run out")
)

// Durable is implemented by brokers that keep messages until they are
// acknowledged. A durable queue belongs to a topic and has a name; from its
// declaration on it receives every message published to the topic, and a
// message stays in the engine until every durable queue of its topic has
// acknowledged it. Members of a queue share its messages. Delivery is at least
// once: whatever breaks, a message that was not acknowledged comes again.
//
// Durable queues and live subscriptions with the same queue name have nothing
// to do with each other. All methods are safe for concurrent use and honour
// the context's end promptly; the context bounds the call alone.
type Durable interface {
	Broker
	// Declare makes sure that the queue is there and has the options. What is
	// published after it has returned is kept for the queue. A topic may be a
	// pattern when the broker has [Wildcards].
	Declare(ctx context.Context, topic, queue string, o QueueOptions) error
	// Join declares the queue and enters it. The member lives until it is
	// closed and survives an engine that goes away and comes back, and a queue
	// that somebody deletes: it is declared again.
	Join(ctx context.Context, topic, queue string, o JoinOptions) (Member, error)
}

// QueueOptions refine a durable queue. A zero field leaves an existing queue
// as it is.
type QueueOptions struct {
	// AckWait is how long a member has for a message before it is given to a
	// member again; for a new queue 0 is [DefaultAckWait]. An engine may round
	// it up to whole seconds.
	AckWait time.Duration
	// MaxInFlight, when positive, makes the queue an ordered one, and bounds how
	// many of its messages are with a member, waiting to be acknowledged or for
	// the end of a Nack's delay. One member at a time has the turn: it gets all
	// messages, in the order stored, and the others stand by until it leaves or
	// is gone. Whoever takes over begins with what is not acknowledged, in that
	// order; what a dead member held is waited for, up to AckWait. With 1 the
	// next message is not given to anybody before the one before it is
	// acknowledged; with more, it is for the member to hold back what must not
	// overtake a message that it has given back. Negative is no bound, and so is
	// 0 for a new queue.
	MaxInFlight int
	// Expires is how long the queue lives without a member; 0 is forever for a
	// new queue, negative makes it so for an existing one.
	Expires time.Duration
}

// JoinOptions refine a membership.
type JoinOptions struct {
	QueueOptions
	// Prefetch is the most messages that this member holds at a time, given
	// out by Receive or waiting for it; 0 is 1.
	Prefetch int
	// PrefetchBytes bounds them in bytes, a single message aside, which always
	// may be held; 0 is no bound. An engine that counts messages alone takes no
	// account of it.
	PrefetchBytes int
}

// Member receives the messages of a durable queue.
type Member interface {
	// Receive waits for the next message. It returns ctx's error when that
	// ends first, and ErrClosed after Drain or Close; other errors do not end the
	// membership, a driver tries on by itself. A message comes in the order it
	// was stored, unless it was given back before. On an ordered queue Receive
	// returns ErrLapsed when the member has lost its turn: all that it holds has
	// lapsed, and the next call waits for the next turn.
	Receive(ctx context.Context) (*Held, error)
	// Drain takes no further messages: Receive returns ErrClosed from now on,
	// what it has not given out is returned, and what it has stays held until
	// it is settled, or Close. Draining twice is no error.
	Drain(ctx context.Context) error
	// Close leaves the queue. It returns the messages that are still held, as
	// [Held.Return] does, so that other members get them at once. Closing
	// twice is no error.
	Close(ctx context.Context) error
}

// Eager is implemented by members that can tell what has arrived already.
type Eager interface {
	// Next is Receive for what is there: it returns false rather than wait.
	Next() (*Held, bool)
}

// Deduplicator is implemented by brokers that can tell a message that was
// published before.
type Deduplicator interface {
	// PublishOnce is Publish, but a message with the ID (not "") of one that
	// was published to the same topic less than [OnceWithin] ago is not stored
	// again, and that is no error.
	PublishOnce(ctx context.Context, topic, id string, m Message) error
}

// Bulk is implemented by brokers that can have several messages on their way
// to the engine.
type Bulk interface {
	// PublishAll publishes messages in this order, without waiting for the
	// engine to have taken one before it sends the next, and then waits for
	// all. ids are the messages' IDs as in [Deduplicator], "" for none. An
	// error of the result says what Publish would of the message at its index;
	// messages behind one that failed may have been taken.
	PublishAll(ctx context.Context, topic string, ids []string, all []Message) []error
}

// Wildcards is implemented by brokers whose subscriptions and durable queues
// may match several topics: topics are divided by dots; a part of a pattern
// that is * stands for any one part, and a last part that is > for one or more.
// In a topic that is published to these characters mean nothing.
type Wildcards interface {
	// Match tells whether the pattern matches the topic. Every topic that is
	// no pattern matches itself alone.
	Match(pattern, topic string) bool
}

// DeadSuffix ends the topics of dead letters. These are for queues that ask for
// them, by the topic's name or by a pattern with the same end. A queue of any
// other pattern acknowledges them unread.
const DeadSuffix = ".dead"

// Queues is implemented by durable brokers whose queues can be looked at and
// managed.
type Queues interface {
	// Queues returns all durable queues, sorted by topic and name.
	Queues(ctx context.Context) ([]QueueInfo, error)
	// Queue returns one, or ErrNoQueue.
	Queue(ctx context.Context, topic, queue string) (QueueInfo, error)
	// Purge drops what the queue holds and returns how many messages that
	// were. Other queues of the topic keep theirs.
	Purge(ctx context.Context, topic, queue string) (int, error)
	// Delete removes the queue with all it holds, or returns ErrNoQueue. A
	// member that is there brings the queue back, empty.
	Delete(ctx context.Context, topic, queue string) error
	// Browse returns up to limit messages that the queue has not acknowledged,
	// oldest first, beginning behind the message with the ID after ("" is the
	// beginning). It takes none. When other queues of the topic are behind,
	// messages that this one acknowledged out of turn may be among them.
	Browse(ctx context.Context, topic, queue, after string, limit int) ([]Stored, error)
	// Remove takes one message out of the queue as if it had been
	// acknowledged, or returns ErrNoMessage. An engine that cannot do that
	// without taking it from another queue that has not had it says so with an
	// error that wraps [errors.ErrUnsupported]; see [DeadSuffix] for queues that
	// do not want it.
	Remove(ctx context.Context, topic, queue, id string) error
}

// QueueInfo describes a durable queue at one moment.
type QueueInfo struct {
	Topic string // or pattern
	Queue string
	// Lag is how many messages wait for a member; Held is how many are with a
	// member or wait for the end of a Nack's delay.
	Lag, Held int
	// Oldest is when the oldest message that is not acknowledged was stored;
	// zero when there is none or the engine cannot tell.
	Oldest time.Time
	// Members is how many are there now; an engine that cannot count them says
	// 1 when there are any.
	Members int
	// LastSeen is when a member was there last: now, if there is one. It may
	// be a minute old. Zero when there never was one.
	LastSeen time.Time
	// The options of the queue: MaxInFlight 0 is no bound, Expires 0 is never.
	AckWait     time.Duration
	MaxInFlight int
	Expires     time.Duration
}

// Stored is a message that a durable queue keeps.
type Stored struct {
	Delivery
	// ID names the message within its queue, the same at every delivery.
	ID string
	// At is when the engine took the message.
	At time.Time
}
