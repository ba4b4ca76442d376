package certs

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/time/rate"
)

// How many names without a certificate may be asked for: so many at once, then
// one each. Let's Encrypt allows one more a minute at most, and 5 failures a name
// and hour.
const (
	demandBurst = 10
	demandEvery = 3 * time.Minute
	// demandHold is how long a name that was let through needs no other token:
	// the library asks several times, and clients come at once.
	demandHold = time.Minute
)

// demand limits the names that clients may have certificates issued for.
type demand struct {
	limit *rate.Limiter

	mu   sync.Mutex
	held map[string]time.Time // until when
}

func newDemand() *demand {
	return &demand{limit: rate.NewLimiter(rate.Every(demandEvery), demandBurst), held: map[string]time.Time{}}
}

// allow reports whether a certificate may be asked for.
func (d *demand) allow(name string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.held[name]) {
		return true
	}
	if !d.limit.AllowN(now, 1) {
		return false
	}
	for other, until := range d.held { // at most some dozens, see limit
		if now.After(until) {
			delete(d.held, other)
		}
	}
	d.held[name] = now.Add(demandHold)
	return true
}

// decide says why there will be no certificate for a name, or nil. One that is
// in the cache costs nothing.
func (a *ACME) decide(ctx context.Context, name string) error {
	if net.ParseIP(name) != nil {
		return fmt.Errorf("%s is an address: certificates are issued for names", name)
	}
	if a.magic.Storage.Exists(ctx, certmagic.StorageKeys.SiteCert(a.issuer.IssuerKey(), name)) {
		return nil
	}
	if !a.asked.allow(name, time.Now()) {
		a.log.Warn("no certificate is asked for: too many names at once; --acme_hosts lists those that are yours", "host", name)
		return fmt.Errorf("certificates for too many names were asked for")
	}
	return nil
}
