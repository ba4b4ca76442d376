//go:build unix

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
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
	offered   map[string]bool             // may come
	published map[string]time.Time        // got a 200, when
	came      map[string]map[string]*came // queue → message
	order     map[string][]string         // queue → messages as they came first
	absent    int                         // deliveries of what is published that are to come
	wrong     []string                    // deliveries that nobody has sent
	struck    []time.Time                 // when something was killed or cut
}

// came is when a message came to a queue.
type came []time.Time

func newLedger(queues ...string) *ledger {
	l := &ledger{offered: map[string]bool{}, published: map[string]time.Time{}, came: map[string]map[string]*came{}, order: map[string][]string{}}
	for _, q := range queues {
		l.came[q] = map[string]*came{}
	}
	return l
}

// bodyOf is what carries a message: its name and what can be made of that alone,
// of a length of its own, so that a body that has suffered is seen.
func bodyOf(message string) string {
	sum := sha256.Sum256([]byte(message))
	return message + " " + strings.Repeat(hex.EncodeToString(sum[:]), int(sum[0])%16)
}

// offer notes a message that is about to be published.
func (l *ledger) offer(message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered[message] = true
}

// publish notes that a message got a 200.
func (l *ledger) publish(message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered[message] = true
	if _, again := l.published[message]; !again {
		for _, came := range l.came {
			if came[message] == nil {
				l.absent++
			}
		}
	}
	l.published[message] = time.Now()
}

// arrive notes a delivery.
func (l *ledger) arrive(queue, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	message, _, _ := strings.Cut(body, " ")
	if !l.offered[message] || body != bodyOf(message) {
		l.wrong = append(l.wrong, fmt.Sprintf("corrupted: %.100q in queue %s", message, queue))
		return
	}
	times := l.came[queue][message]
	if times == nil {
		times = new(came)
		l.came[queue][message] = times
		l.order[queue] = append(l.order[queue], message)
		if _, published := l.published[message]; published {
			l.absent--
		}
	}
	*times = append(*times, time.Now())
}

// strike notes that something is killed or cut now: what it was working on may
// come again.
func (l *ledger) strike() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.struck = append(l.struck, time.Now())
}

// has tells that a message came to every queue.
func (l *ledger) has(message string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, came := range l.came {
		if came[message] == nil {
			return false
		}
	}
	return true
}

// stored is how many messages got a 200 so far.
func (l *ledger) stored() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.published)
}

// missing is how many deliveries are still to come.
func (l *ledger) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.absent
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
			for i < len(all) && came[all[i]] == nil && strings.HasPrefix(all[i], key+"/") {
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
			n += len(*times) - 1
		}
	}
	return n
}

// report tells for each queue how many messages came, how late at most, how many
// deliveries were more than one, and how long before a strike the delivery was
// that had to be repeated: what was under way then comes again, and what the
// engine's host had not written down.
func (l *ledger) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var report strings.Builder
	for _, queue := range slices.Sorted(maps.Keys(l.came)) {
		latest := time.Duration(0)
		var before []time.Duration // of the strike that follows
		causeless := 0
		for m, times := range l.came[queue] {
			if at, ok := l.published[m]; ok {
				latest = max(latest, (*times)[0].Sub(at))
			}
			for i := range len(*times) - 1 {
				at, again := (*times)[i], (*times)[i+1]
				next, _ := slices.BinarySearchFunc(l.struck, at, time.Time.Compare)
				switch {
				case next < len(l.struck) && l.struck[next].Before(again):
					before = append(before, l.struck[next].Sub(at))
				case next == 0 || at.Sub(l.struck[next-1]) > time.Second: // which a strike may take
					causeless++
				default:
					before = append(before, 0)
				}
			}
		}
		slices.Sort(before)
		fmt.Fprintf(&report, "\n%s: %d messages, the latest after %v; %d duplicates without a cause", queue, len(l.came[queue]), latest.Round(time.Millisecond), causeless)
		if n := len(before); n > 0 {
			fmt.Fprintf(&report, ", %d of what came before a strike: half within %v of it, the earliest %v", n, before[n/2].Round(time.Millisecond), before[n-1].Round(time.Millisecond))
		}
	}
	return report.String()
}

// faults says what must not be: messages that got a 200 and never came, what
// came and was not sent, and, in the ordered queue, messages of one key
// ("key/0001") that first came out of order.
func (l *ledger) faults(ordered string) (faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	faults = slices.Clone(l.wrong)
	for queue, came := range l.came {
		for m := range l.published {
			if came[m] == nil {
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
			l.arrive("billing", bodyOf(m))
		}
		l.offer("a/3")
		for _, m := range audit {
			body, spoilt := strings.CutSuffix(m, "!")
			if body = bodyOf(body); spoilt {
				body = body[:len(body)-1]
			}
			l.arrive("audit", body)
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
		{"what nobody sent", []string{"a/1", "a/2", "b/1", "c/1"}, `corrupted: "c/1" in queue audit`, 0},
		{"a body cut short", []string{"a/1", "a/2!", "a/2", "b/1"}, `corrupted: "a/2" in queue audit`, 0},
		{"nothing but a body cut short", []string{"a/1", "a/2!", "b/1"}, `corrupted: "a/2" in queue audit; lost: a/2 in queue audit`, 0},
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
