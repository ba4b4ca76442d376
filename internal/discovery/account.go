package discovery

import (
	"sync"
	"sync/atomic"
	"time"
)

// Account is what balancing knows about a service as a whole. All snapshots of
// the service share it, so it outlasts every change of its nodes.
type Account struct {
	// Turn is where round robin stands: the node picked last.
	Turn atomic.Pointer[Node]
	// Budget bounds the requests that are sent again.
	Budget *Budget
	// Outliers are the nodes that are out of the rotation.
	Outliers Outliers
}

// NewAccount returns the account of a service that is new.
func NewAccount() *Account { return &Account{Budget: &Budget{}} }

// Budget is how many requests may be sent again: a fifth as many as come, and
// ten a second beside, as in Finagle's RetryBudget. What is not used within a
// second is lost, so that a service that begins to fail is not met by what was
// saved while it was well. The zero value is ready; a request costs one atomic
// addition, and only one that is to be sent again takes the service's lock.
type Budget struct {
	requests atomic.Int64 // that came
	spent    atomic.Int64 // that were sent again
	refused  atomic.Int64 // that were not, for want of a budget

	mu     sync.Mutex
	tokens float64
	rate   float64 // of requests, a second
	at     int64   // when tokens was reckoned, 0: never
	seen   int64   // requests then
	since  int64   // when rate was
	base   int64   // requests then
}

const (
	// budgetShare is what each request earns, budgetRate what each second does.
	budgetShare = 0.2
	budgetRate  = 10.0
)

// Count notes a request that came.
func (b *Budget) Count() { b.requests.Add(1) }

// Take reports whether a request may be sent again at the time now, which is
// [Now], and counts it.
func (b *Budget) Take(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.earn(now)
	if b.tokens < 1 {
		b.refused.Add(1)
		return false
	}
	b.tokens--
	b.spent.Add(1)
	return true
}

// earn adds what requests and time have earned.
func (b *Budget) earn(now int64) {
	requests := b.requests.Load()
	if b.at == 0 { // one second of nothing has been saved
		b.at, b.since, b.tokens = now, now, budgetRate
	}
	if past := now - b.since; past >= int64(time.Second) {
		b.rate = float64(requests-b.base) / time.Duration(past).Seconds()
		b.since, b.base = now, requests
	}
	earned := budgetShare*float64(requests-b.seen) + budgetRate*time.Duration(max(now-b.at, 0)).Seconds()
	b.tokens = min(b.tokens+earned, budgetRate+budgetShare*b.rate)
	b.at, b.seen = now, requests
}

// BudgetState is what became of the requests of a service so far.
type BudgetState struct {
	Requests int64 // that came
	Retries  int64 // of them that were sent again
	Refused  int64 // that were not, because the budget was spent
}

// State returns the totals.
func (b *Budget) State() BudgetState {
	return BudgetState{Requests: b.requests.Load(), Retries: b.spent.Load(), Refused: b.refused.Load()}
}

// epoch is what Now counts from.
var epoch = time.Now()

// Now is a time in nanoseconds that no setting of the clock moves. It reads
// one clock, time.Now two.
func Now() int64 { return int64(time.Since(epoch)) }

// clockInterval is how often somebody looks whether the clock was set, and how
// much it must have been set for that to matter.
const clockInterval = time.Second

// clockSet is by how much the clock was set since the process began.
func clockSet() time.Duration { return time.Now().Round(0).Sub(epoch.Round(0)) - time.Since(epoch) }
