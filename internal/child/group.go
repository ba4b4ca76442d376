package child

import (
	"context"
	"errors"
	"os"
	"sync"
)

// Group is the programs that run below this process, in the order they were
// given. A nil one is none. Its methods are safe for concurrent use.
type Group struct {
	all   []*Process
	ended chan struct{} // closed when one has ended

	mu    sync.Mutex
	asked bool     // to stop
	first *Process // the first that ended, and was not asked to
}

// NewGroup makes a group of programs that are not started yet; nil of none.
func NewGroup(all ...*Process) *Group {
	if len(all) == 0 {
		return nil
	}
	reaper := newReaper()
	for _, p := range all {
		p.reaper = reaper
	}
	return &Group{all: all, ended: make(chan struct{})}
}

// Start starts the programs one after the other, with env added to the
// environment of each, until one cannot be started: the error is its
// *[StartError]. It calls started with each that was, and is called once.
func (g *Group) Start(started func(*Process), env ...string) error {
	if g == nil {
		return nil
	}
	for _, p := range g.all {
		if err := p.Start(env...); err != nil {
			return err
		}
		go g.follow(p)
		started(p)
	}
	return nil
}

// follow notes the end of p.
func (g *Group) follow(p *Process) {
	<-p.Done()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first == nil && !g.asked {
		g.first = p
		close(g.ended)
	}
}

// Ended is closed when one of the programs has ended that was not asked to.
func (g *Group) Ended() <-chan struct{} {
	if g == nil {
		return nil
	}
	return g.ended
}

// First returns the program that closed Ended, nil before.
func (g *Group) First() *Process {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first
}

// Status is the exit status of the whole: that of the program that ended
// first, if it was not asked to; else the first that is not 0. ran is false
// when none has ended.
func (g *Group) Status() (status int, ran bool) {
	if first := g.First(); first != nil {
		return first.Ended()
	}
	if g == nil {
		return 0, false
	}
	for _, p := range g.all {
		one, ended := p.Ended()
		if ran = ran || ended; one != 0 {
			return one, true
		}
	}
	return 0, ran
}

// Signal sends each program, and nobody else in its group, a signal.
func (g *Group) Signal(s os.Signal) error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, p := range g.all {
		errs = append(errs, p.Signal(s))
	}
	return errors.Join(errs...)
}

// Stop is [Process.Stop] for all of them, side by side.
func (g *Group) Stop(ctx context.Context, s os.Signal) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	g.asked = true
	g.mu.Unlock()
	errs := make([]error, len(g.all))
	var stops sync.WaitGroup
	for n, p := range g.all {
		stops.Go(func() { errs[n] = p.Stop(ctx, s) })
	}
	stops.Wait()
	return errors.Join(errs...)
}

// Kill ends all of them at once.
func (g *Group) Kill() {
	if g == nil {
		return
	}
	for _, p := range g.all {
		p.Kill()
	}
}
