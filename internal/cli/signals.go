package cli

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// signals are those that come to the process. A nil one has none.
type signals struct {
	come   chan os.Signal
	noHang bool // SIGHUP was ignored from the start, as nohup does

	mu     sync.Mutex
	uses   []os.Signal
	use    func(os.Signal)
	before func() // an end without order
}

// newSignals begins to take the signals that end a command.
func newSignals() *signals {
	s := &signals{come: make(chan os.Signal, 16), noHang: signal.Ignored(syscall.SIGHUP)}
	signal.Notify(s.come, os.Interrupt, syscall.SIGTERM)
	if !s.noHang {
		signal.Notify(s.come, syscall.SIGHUP)
	}
	return s
}

// stop takes no more signals.
func (s *signals) stop() { signal.Stop(s.come) }

// handle gives signals to f, which they do not end any more.
func (s *signals) handle(f func(os.Signal), which ...os.Signal) {
	if s == nil || len(which) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses, s.use = which, f
	signal.Notify(s.come, which...)
}

// ignoresHangup reports whether who started the process wants it to outlive the
// terminal.
func (s *signals) ignoresHangup() bool { return s != nil && s.noHang }

// used gives a signal to whom it is for; false means to nobody.
func (s *signals) used(sig os.Signal) bool {
	s.mu.Lock()
	use := s.use
	ok := slices.Contains(s.uses, sig)
	s.mu.Unlock()
	if ok {
		use(sig)
	}
	return ok
}

// echo is how soon after a signal to end, and before the end begins, another
// one is no second wish: timeout(1), npm and shells signal a process and then
// its group, and so the process twice.
const echo = 5 * time.Millisecond

// settle takes what comes within echo for part of the signal before it.
func (s *signals) settle() {
	over := time.After(echo)
	for {
		select {
		case again := <-s.come:
			s.used(again)
		case <-over:
			return
		}
	}
}

// beforeAbort has f called when a second signal ends the process at once.
func (s *signals) beforeAbort(f func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *signals) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil {
		s.before()
	}
}
