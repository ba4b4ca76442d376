package sidecar

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/certs"
	"github.com/micro/sidecar/internal/testserver"
)

// How long the authority's certificates are valid, in seconds.
const (
	longValid  = 24 * 60 * 60
	shortValid = 60
)

// acme starts a sidecar that has its certificates from an authority.
func acme(t *testing.T, ca *testserver.PebbleServer, cache string, change func(*certs.ACMEOptions)) *running {
	t.Helper()
	roots, err := certs.ReadPool(ca.Root)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, func(c *Config) {
		c.Addresses = []string{fmt.Sprint("127.0.0.1:", ca.TLSPort)}
		c.ACME = &certs.ACMEOptions{
			CA: ca.Directory, Roots: roots, Email: "ops@sidecar.test", Cache: cache,
			HTTPAddress: fmt.Sprint("127.0.0.1:", ca.HTTPPort), RenewCheck: time.Second,
		}
		change(c.ACME)
	})
}

// shown is the certificate that the sidecar shows for a name, nil without one
// that the authority issued.
func (r *running) shown(name string, trust *x509.CertPool) *x509.Certificate {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "http://"), &tls.Config{ServerName: name, RootCAs: trust})
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// issued waits for a certificate other than before.
func (r *running) issued(name string, trust *x509.CertPool, before *x509.Certificate) *x509.Certificate {
	r.t.Helper()
	// What failed once is tried again after a minute.
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); pause(r.t) {
		if cert := r.shown(name, trust); cert != nil && (before == nil || !cert.Equal(before)) {
			return cert
		}
	}
	r.t.Fatalf("there is no certificate for %s", name)
	return nil
}

func TestACMEIssuesByEitherChallenge(t *testing.T) {
	t.Parallel()
	for challenge, change := range map[string]func(*certs.ACMEOptions){
		"TLS-ALPN-01": func(o *certs.ACMEOptions) { o.NoHTTP = true },
		"HTTP-01":     func(o *certs.ACMEOptions) { o.NoALPN = true },
	} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			ca := testserver.Pebble(t, longValid)
			r := acme(t, ca, t.TempDir(), func(o *certs.ACMEOptions) {
				o.Hosts = []string{"one.sidecar.test", "two.sidecar.test"}
				change(o)
			})
			trust := ca.Issuer()
			for _, host := range []string{"one.sidecar.test", "two.sidecar.test"} {
				r.issued(host, trust, nil)
			}
			if cert := r.shown("other.sidecar.test", trust); cert != nil {
				t.Errorf("a host that is not on the list got %v", cert.DNSNames)
			}
			if strings.Contains(r.log.String(), "other.sidecar.test\" renewal") {
				t.Error("a certificate was issued for a host that is not on the list")
			}
			// The certificate is one that requests are answered with.
			client := &http.Client{Transport: &http.Transport{
				DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust, ServerName: "one.sidecar.test"}, ForceAttemptHTTP2: true,
			}}
			resp, err := client.Get("https" + strings.TrimPrefix(r.url, "http") + "/livez")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
				t.Errorf("GET /livez: %s %s", resp.Proto, resp.Status)
			}
		})
	}
}

func TestWithoutTLSIsRedirected(t *testing.T) {
	t.Parallel()
	ca := testserver.Pebble(t, longValid)
	acme(t, ca, t.TempDir(), func(o *certs.ACMEOptions) { o.Hosts = []string{"plain.sidecar.test"} })
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/foo/a%%2Fb?x=%%20", ca.HTTPPort), strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "plain.sidecar.test"
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := fmt.Sprintf("https://plain.sidecar.test:%d/foo/a%%2Fb?x=%%20", ca.TLSPort)
	if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != want {
		t.Errorf("%s to %s, want 308 to %s", resp.Status, resp.Header.Get("Location"), want)
	}
}

// A certificate is asked for once: a restart finds it, also with the authority
// away.
func TestACMERestartsFromTheCache(t *testing.T) {
	t.Parallel()
	ca := testserver.Pebble(t, longValid)
	cache := t.TempDir()
	hosts := func(o *certs.ACMEOptions) { o.Hosts = []string{"kept.sidecar.test"} }
	first := acme(t, ca, cache, hosts)
	trust := ca.Issuer()
	before := first.issued("kept.sidecar.test", trust, nil)
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	ca.Stop()
	second := acme(t, ca, cache, hosts)
	if after := second.issued("kept.sidecar.test", trust, nil); !after.Equal(before) {
		t.Errorf("the certificate is another: %x, was %x", after.SerialNumber, before.SerialNumber)
	}
}

// Renewal comes by itself. An authority that is away is tried again and the log
// says so; until then the old certificate is shown.
func TestACMERenews(t *testing.T) {
	t.Parallel()
	ca := testserver.Pebble(t, shortValid)
	r := acme(t, ca, t.TempDir(), func(o *certs.ACMEOptions) { o.Hosts = []string{"renewed.sidecar.test"} })
	trust := ca.Issuer()
	first := r.issued("renewed.sidecar.test", trust, nil)
	second := r.issued("renewed.sidecar.test", trust, first)
	ca.Away(true)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(r.log.String(), "the one in use stays"); {
		if time.Now().After(deadline) {
			t.Fatal("the log does not say that there is no new one")
		}
		pause(t)
	}
	ca.Away(false)
	r.issued("renewed.sidecar.test", trust, second)
}

// Without a list, what clients ask for is issued, within a rate.
func TestACMEOnDemand(t *testing.T) {
	t.Parallel()
	ca := testserver.Pebble(t, longValid)
	r := acme(t, ca, t.TempDir(), func(*certs.ACMEOptions) {})
	trust := ca.Issuer()
	if log := r.log.String(); !strings.Contains(log, "no --acme_hosts") {
		t.Errorf("no warning in the log:\n%s", log)
	}
	for n := range 10 {
		r.issued(fmt.Sprintf("n%d.demand.sidecar.test", n), trust, nil)
	}
	if cert := r.shown("n10.demand.sidecar.test", trust); cert != nil {
		t.Error("an eleventh name at once got a certificate")
	}
	if r.shown("n3.demand.sidecar.test", trust) == nil {
		t.Error("a name that has a certificate is not served any more")
	}
	if log := r.log.String(); !strings.Contains(log, "too many names at once") {
		t.Errorf("the log does not tell of the rate:\n%s", log)
	}
	if strings.Contains(r.log.String(), "127.0.0.1\" renewal") {
		t.Error("a certificate was issued for an address")
	}
}

// pause waits for a moment of a loop that looks for something slow.
func pause(t *testing.T) {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-t.Context().Done():
	}
}
