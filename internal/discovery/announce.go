package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/registry"
)

// Announce registers s and renews it each interval, so that it is gone ttl
// after this process has died; when the engine has lost it, at once. It
// returns when ctx ends, without deregistering: [Discovery.Withdraw] does
// that. A failed registration is logged once and tried again soon.
func (d *Discovery) Announce(ctx context.Context, s registry.Service, ttl, interval time.Duration) {
	hint := make(chan struct{}, 1)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks.Go(func() {
		d.hints(ctx, s.Name, func(ev registry.Event) {
			if ev.Name == "" || ev.Name == s.Name {
				select {
				case hint <- struct{}{}:
				default:
				}
			}
		})
	})

	failing := false
	for ctx.Err() == nil {
		err := d.announceOnce(ctx, s, ttl)
		wait := jitter(interval)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, registry.ErrReadOnly):
			if !d.unwritable.Swap(true) {
				d.log.Warn("application is not registered: --registry names nothing that can be written", "service", s.Name, "error", err)
			}
			<-ctx.Done()
			return
		case err != nil:
			if !failing {
				d.log.Warn("application could not be registered; trying on", "service", s.Name, "error", err)
			}
			failing, wait = true, min(jitter(retry), interval)
		case failing:
			failing = false
			d.log.Info("application registered again", "service", s.Name)
		}
		d.awaitRenewal(ctx, s, wait, hint)
	}
}

// announceOnce registers with a deadline of its own: a hanging engine must not
// cost the next try.
func (d *Discovery) announceOnce(ctx context.Context, s registry.Service, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return d.Register(ctx, s, ttl)
}

// awaitRenewal returns when it is time to register again: after wait, when a
// hint turns out to mean that the engine no longer has s, or when the clock was
// set, by which an engine may have reckoned how long s lives.
func (d *Discovery) awaitRenewal(ctx context.Context, s registry.Service, wait time.Duration, hint <-chan struct{}) {
	due := time.NewTimer(wait)
	defer due.Stop()
	look := time.NewTicker(clockInterval)
	defer look.Stop()
	set := clockSet()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-look.C:
			if by := clockSet() - set; by.Abs() > clockInterval {
				d.log.Warn("the clock was set, or the machine slept; registering again", "service", s.Name, "by", by.Round(time.Second))
				return
			}
		case <-hint:
			if d.lost(ctx, s) {
				return
			}
		}
	}
}

// lost reports whether the engine says that it no longer has s. It may hang
// for no longer than a read: the next renewal waits.
func (d *Discovery) lost(ctx context.Context, s registry.Service) bool {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	now, err := d.reg.Get(ctx, s.Name)
	return err == nil && !holds(now, s) || errors.Is(err, registry.ErrNotFound)
}

// holds reports whether every node of s is among versions.
func holds(versions []registry.Service, s registry.Service) bool {
	for _, n := range s.Nodes {
		found := slices.ContainsFunc(versions, func(v registry.Service) bool {
			return slices.ContainsFunc(v.Nodes, func(o registry.Node) bool { return o.ID == n.ID })
		})
		if !found {
			return false
		}
	}
	return true
}

// Register registers s at the engine; when it returns, look-ups here see it.
func (d *Discovery) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if err := d.reg.Register(ctx, s, ttl); err != nil {
		return err
	}
	d.settle(ctx, s.Name)
	d.tell(ctx, s.Name)
	return nil
}

// Withdraw removes the nodes of s from the engine; when it returns, look-ups
// here no longer answer them.
func (d *Discovery) Withdraw(ctx context.Context, s registry.Service) error {
	if err := d.reg.Deregister(ctx, s); err != nil {
		return err
	}
	d.trust(s.Name)
	d.settle(ctx, s.Name)
	d.tell(ctx, s.Name)
	return nil
}

// trust believes the engine about a service again: what it does not know was
// removed.
func (d *Discovery) trust(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.entries[name]; e != nil {
		e.doubted = time.Time{}
	}
}

// settle makes the snapshot catch up, when there is one. A read that fails is
// tried again by itself.
func (d *Discovery) settle(ctx context.Context, name string) {
	if _, known := d.known.Load(name); known {
		_, _ = d.Refresh(ctx, name)
	}
}
