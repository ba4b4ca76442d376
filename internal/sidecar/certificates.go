package sidecar

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/micro/sidecar/internal/certs"
)

// prepareACME puts certificates by ACME in the place of TLS, if they are wanted.
func (s *sidecar) prepareACME() {
	if s.cfg.ACME != nil {
		s.acme = certs.NewACME(*s.cfg.ACME, s.log)
		s.cfg.TLS = s.acme.Config()
	}
}

// keepCertificates begins to keep the certificates of the listeners fresh.
func (s *sidecar) keepCertificates(ctx context.Context) error {
	if files := s.cfg.Certificates; files != nil {
		s.certificates.begin(func(ctx context.Context) { files.Watch(ctx, s.log) })
	}
	if s.acme == nil {
		return nil
	}
	if err := s.acme.Start(ctx, firstPort(s.server.Addresses())); err != nil {
		return errors.Join(err, s.acme.Stop(ctx))
	}
	s.log.Info("certificates by ACME; what comes without TLS is redirected", "hosts", strings.Join(s.cfg.ACME.Hosts, " "), "http", s.acme.HTTPAddress())
	return nil
}

// stopCertificates ends what keeps certificates fresh.
func (s *sidecar) stopCertificates(ctx context.Context) error {
	err := s.certificates.stop(ctx)
	if s.acme != nil {
		err = errors.Join(err, s.acme.Stop(ctx))
	}
	return err
}

// firstPort is the port of the first TCP address, 0 for none.
func firstPort(addresses []string) int {
	for _, address := range addresses {
		if _, port, err := net.SplitHostPort(address); err == nil {
			if n, err := strconv.Atoi(port); err == nil {
				return n
			}
		}
	}
	return 0
}
