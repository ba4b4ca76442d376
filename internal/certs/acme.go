package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// ACMEProtocol is the protocol of the connections that an authority makes to
// see that a name is ours (TLS-ALPN-01, RFC 8737). Nothing is said on them.
const ACMEProtocol = acmez.ACMETLS1Protocol

// ACMEOptions say whose certificates are asked for, and where.
type ACMEOptions struct {
	// Hosts are the names; none means any that a client asks for, within a rate.
	Hosts []string
	CA    string         // the URL of the authority's directory; "" is Let's Encrypt's
	Roots *x509.CertPool // whom to trust about who the authority is; nil: the system's
	Email string         // whom the authority may write to; "" for nobody
	Cache string         // the folder for account, certificates and keys
	// HTTPAddress is the "host:port" of the listener without TLS, for HTTP-01
	// and for redirects.
	HTTPAddress string

	// RenewCheck is how often it is looked whether certificates are to be
	// renewed, 0 is 10 minutes. It is renewed when the authority recommends it
	// (RFC 9773), or else when a third of its life is left.
	RenewCheck time.Duration
	// NoHTTP and NoALPN turn one kind of challenge off.
	NoHTTP, NoALPN bool
}

// ACME has certificates issued by an authority. Its methods are safe for
// concurrent use.
type ACME struct {
	o       ACMEOptions
	log     *slog.Logger
	cache   *certmagic.Cache
	magic   *certmagic.Config
	issuer  *certmagic.ACMEIssuer
	asked   *demand // nil with a list of hosts
	ctx     context.Context
	cancel  context.CancelFunc
	plain   *http.Server // redirects and answers challenges
	served  chan struct{}
	address net.Addr
}

// NewACME makes an ACME that issues nothing before Start.
func NewACME(o ACMEOptions, log *slog.Logger) *ACME {
	a := &ACME{o: o, log: log}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	told := newLogger(log)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		RenewCheckInterval: o.RenewCheck,
		Logger:             told,
	})
	config := certmagic.Config{
		Storage: &certmagic.FileStorage{Path: o.Cache},
		OnEvent: a.tell,
		Logger:  told,
	}
	if len(o.Hosts) > 0 {
		config.DefaultServerName = o.Hosts[0] // for clients that name none
	} else {
		a.asked = newDemand()
		config.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: a.decide}
	}
	a.magic = certmagic.New(a.cache, config)
	a.issuer = certmagic.NewACMEIssuer(a.magic, certmagic.ACMEIssuer{
		CA: o.CA, TestCA: o.CA, Email: o.Email, Agreed: true, TrustedRoots: o.Roots,
		DisableHTTPChallenge: o.NoHTTP, DisableTLSALPNChallenge: o.NoALPN,
		Logger: told,
	})
	a.magic.Issuers = []certmagic.Issuer{a.issuer}
	return a
}

// Config is what handshakes are made with.
func (a *ACME) Config() *tls.Config {
	return &tls.Config{GetCertificate: a.certificate, NextProtos: []string{ACMEProtocol}}
}

// certificate is for [tls.Config.GetCertificate]. What a client's handshake has
// begun to be issued is issued, also when the client does not wait for it.
func (a *ACME) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if a.asked == nil || slices.Contains(hello.SupportedProtos, ACMEProtocol) {
		return a.magic.GetCertificate(hello)
	}
	type result struct {
		cert *tls.Certificate
		err  error
	}
	done := make(chan result, 1)
	go func() {
		cert, err := a.magic.GetCertificateWithContext(a.ctx, hello)
		done <- result{cert, err}
	}()
	select {
	case r := <-done:
		return r.cert, r.err
	case <-hello.Context().Done():
		return nil, fmt.Errorf("a certificate for %q is being issued: %w", hello.ServerName, hello.Context().Err())
	}
}

// Start binds HTTPAddress, and has certificates issued, loaded and renewed from
// here on; what fails is tried again and logged. tlsPort is the port of the
// listener with TLS, 0 for none. It fails only when the address cannot be had.
func (a *ACME) Start(ctx context.Context, tlsPort int) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", a.o.HTTPAddress)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another program; choose another with --acme_http_address", a.o.HTTPAddress)
	case err != nil:
		return fmt.Errorf("listen on %s for --acme_http_address: %w", a.o.HTTPAddress, err)
	}
	a.address = l.Addr()
	if tcp, ok := a.address.(*net.TCPAddr); ok {
		a.issuer.AltHTTPPort = tcp.Port
	}
	// Both are in use by us: the library sees that and opens none of its own.
	a.issuer.AltTLSALPNPort = tlsPort
	a.serve(l, tlsPort)
	if a.asked != nil {
		a.log.Warn("no --acme_hosts: certificates are issued for whatever name clients ask for, within a rate", "burst", demandBurst, "every", demandEvery)
		return nil
	}
	return a.magic.ManageAsync(a.ctx, a.o.Hosts)
}

// HTTPAddress is where it listens without TLS.
func (a *ACME) HTTPAddress() string { return a.address.String() }

// Stop ends what is under way, and waits for it until ctx ends.
func (a *ACME) Stop(ctx context.Context) error {
	a.cancel()
	a.cache.Stop()
	if a.plain == nil {
		return nil
	}
	err := a.plain.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.plain.Close())
	}
	<-a.served
	return err
}

// tell logs what became of a certificate.
func (a *ACME) tell(_ context.Context, event string, data map[string]any) error {
	renewal, _ := data["renewal"].(bool)
	switch event {
	case "cert_obtained":
		a.log.Info("certificate issued", "host", data["identifier"], "renewal", renewal)
	case "cert_failed":
		kept := "there is none yet"
		if renewal {
			kept = "the one in use stays"
		}
		a.log.Error("no certificate was issued: "+kept+", and it is tried again", "host", data["identifier"], "error", data["error"])
	}
	return nil
}
