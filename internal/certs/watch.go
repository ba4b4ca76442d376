package certs

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"
)

// interval is how often the files are looked at. Looking works everywhere: with
// links that are moved, as Kubernetes does it, with editors that write anew, and
// on file systems that tell nothing.
const interval = time.Second

// Look has Watch look at the files now, for an administrator who has put others
// in their place. It does not wait.
func (c *FromFiles) Look() {
	select {
	case c.asked <- struct{}{}:
	default: // they will be in a moment
	}
}

// Watch takes what is put in the files until ctx ends. What cannot be used
// changes nothing; the log says why, once a change.
func (c *FromFiles) Watch(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-c.asked:
			asked = true
		case <-ticker.C:
		}
		c.check(asked, log)
		c.tellEnd(log)
	}
}

// check takes files that are others than those in use. Unless somebody asked,
// they must have stayed the same for one interval: certificate and key are two
// files, and one is written before the other.
func (c *FromFiles) check(asked bool, log *slog.Logger) {
	now := c.digest()
	settled := now == c.seen || asked
	c.seen = now
	if now == c.taken || !settled {
		return
	}
	c.taken = now // also if it is of no use: that is told once
	if err := c.reload(); err != nil {
		log.Error("the certificate was not reloaded: the one in use stays", "error", err)
		return
	}
	leaf := c.current.Load().Certificates[0].Leaf
	log.Info("certificate reloaded", "file", c.files.Cert, "serial", leaf.SerialNumber.Text(16), "expires", leaf.NotAfter.Format(time.RFC3339))
}

// tellEnd tells, once, when the certificate in use has expired.
func (c *FromFiles) tellEnd(log *slog.Logger) {
	end := c.current.Load().Certificates[0].Leaf.NotAfter
	if time.Now().After(end) && !c.told.Equal(end) {
		c.told = end
		log.Error("the certificate in use has expired: clients refuse it", "file", c.files.Cert, "expired", end.Format(time.RFC3339))
	}
}

// digest tells one content of the files from another.
func (c *FromFiles) digest() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if path == "" {
			continue
		}
		text, err := readFile(path)
		if err != nil {
			text = []byte(err.Error())
		}
		part := sha256.Sum256(text)
		h.Write(part[:])
	}
	h.Sum(sum[:0])
	return sum
}
