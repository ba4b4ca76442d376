//go:build unix

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger notes what was published and what came, and finds what is wrong with
// that. It is safe for concurrent use.
type ledger struct {
	mu        sync.Mutex
	published map[string]time.Time      // when it got a 200
	came      map[string]map[string]int // queue → message → how often
	order     map[string][]string       // queue → messages as they came first
}

func newLedger(queues ...string) *ledger {
	l := &ledger{published: map[string]time.Time{}, came: map[string]map[string]int{}, order: map[string][]string{}}
	for _, q := range queues {
		l.came[q] = map[string]int{}
	}
	return l
}

func (l *ledger) publish(message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published[message] = time.Now()
}

func (l *ledger) arrive(queue, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.came[queue][message]++
	if l.came[queue][message] == 1 {
		l.order[queue] = append(l.order[queue], message)
	}
}

// has tells that a message came to every queue.
func (l *ledger) has(message string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, came := range l.came {
		if came[message] == 0 {
			return false
		}
	}
	return true
}

// stored returns what got a 200 so far.
func (l *ledger) stored() map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.published)
}

// missing is how many deliveries are still to come.
func (l *ledger) missing() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, came := range l.came {
		for m := range l.published {
			if came[m] == 0 {
				n++
			}
		}
	}
	return n
}

// missed describes what has not come: for each queue and key the stretches of
// messages, and when they were published.
func (l *ledger) missed() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Sorted(maps.Keys(l.published)) // a key's are neighbours, in order
	const clock = "15:04:05.000"
	var text strings.Builder
	for queue, came := range l.came {
		for i := 0; i < len(all); {
			key, _, _ := strings.Cut(all[i], "/")
			from := i
			for i < len(all) && came[all[i]] == 0 && strings.HasPrefix(all[i], key+"/") {
				i++
			}
			if n := i - from; n > 0 {
				fmt.Fprintf(&text, "\n%s: %d messages from %s (%s) to %s (%s)", queue, n,
					all[from], l.published[all[from]].UTC().Format(clock), all[i-1], l.published[all[i-1]].UTC().Format(clock))
			} else {
				i++
			}
		}
	}
	return text.String()
}

// duplicates is how many deliveries were more than one.
func (l *ledger) duplicates() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, came := range l.came {
		for _, times := range came {
			n += times - 1
		}
	}
	return n
}

// faults says what must not be: messages that got a 200 and never came, and,
// in the ordered queue, messages of one key ("key/0001") that first came out of
// order.
func (l *ledger) faults(ordered string) (faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for queue, came := range l.came {
		for m := range l.published {
			if came[m] == 0 {
				faults = append(faults, fmt.Sprintf("lost: %s in queue %s", m, queue))
			}
		}
	}
	last := map[string]string{}
	for _, m := range l.order[ordered] {
		key, _, _ := strings.Cut(m, "/")
		if m < last[key] {
			faults = append(faults, fmt.Sprintf("out of order: %s came after %s", m, last[key]))
		}
		last[key] = m
	}
	slices.Sort(faults)
	return faults
}

// The checker finds what it is there to find.
func TestLedger(t *testing.T) {
	fill := func(audit ...string) *ledger {
		l := newLedger("billing", "audit")
		for _, m := range []string{"a/1", "a/2", "b/1"} {
			l.publish(m)
			l.arrive("billing", m)
		}
		for _, m := range audit {
			l.arrive("audit", m)
		}
		return l
	}
	for _, test := range []struct {
		name  string
		audit []string
		want  string
		twice int
	}{
		{"well", []string{"a/1", "b/1", "a/2"}, "", 0},
		{"a duplicate is no fault", []string{"a/1", "a/2", "a/1", "b/1"}, "", 1},
		{"unanswered messages may come", []string{"a/1", "a/2", "a/3", "b/1"}, "", 0},
		{"loss", []string{"a/1", "b/1"}, "lost: a/2 in queue audit", 0},
		{"disorder", []string{"a/2", "b/1", "a/1"}, "out of order: a/1 came after a/2", 0},
	} {
		l := fill(test.audit...)
		if got := strings.Join(l.faults("audit"), "; "); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if got := l.duplicates(); got != test.twice {
			t.Errorf("%s: %d duplicates, want %d", test.name, got, test.twice)
		}
	}
}
