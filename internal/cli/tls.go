package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// tlsFiles are the settings of TLS on the listeners.
type tlsFiles struct {
	enable   bool
	cert     string // PEM, the chain with the server's own first
	key      string // PEM
	clientCA string // PEM; "" asks clients for nothing
}

// finishTLS reads the files that TLS needs. A file without --enable_tls is a
// mistake: somebody believes to be protected.
func (c *Config) finishTLS(given map[string]origin) error {
	f := &c.tls
	if !f.enable {
		for _, name := range []string{"tls_cert_file", "tls_key_file", "tls_client_ca_file"} {
			if from, ok := given[name]; ok {
				return fmt.Errorf("%s needs --enable_tls", from)
			}
		}
		return nil
	}
	switch {
	case f.cert == "":
		return fmt.Errorf("%s needs --tls_cert_file, the certificate in PEM form", given["enable_tls"])
	case f.key == "":
		return fmt.Errorf("%s needs --tls_key_file, the certificate's private key in PEM form", given["enable_tls"])
	}
	pair, err := f.pair(given, time.Now())
	if err != nil {
		return err
	}
	c.Sidecar.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if f.clientCA == "" {
		return nil
	}
	pool, err := readPool(f.clientCA)
	if err != nil {
		return fmt.Errorf("%s: %w", given["tls_client_ca_file"], err)
	}
	c.Sidecar.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	c.Sidecar.TLS.ClientCAs = pool
	return nil
}

// pair reads the certificate and its key, and holds the certificate against
// the clock.
func (f *tlsFiles) pair(given map[string]origin, now time.Time) (tls.Certificate, error) {
	cert, err := os.ReadFile(f.cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", given["tls_cert_file"], err)
	}
	key, err := os.ReadFile(f.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", given["tls_key_file"], err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s %s and %s %s: %w",
			given["tls_cert_file"], f.cert, given["tls_key_file"], f.key, err)
	}
	switch leaf := pair.Leaf; {
	case now.After(leaf.NotAfter):
		err = fmt.Errorf("the certificate expired at %s", leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		err = fmt.Errorf("the certificate is not valid before %s", leaf.NotBefore.Format(time.RFC3339))
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %s: %w", given["tls_cert_file"], f.cert, err)
	}
	return pair, nil
}

// readPool reads the certificates of authorities.
func readPool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New(path + ": no certificate in PEM form is in it")
	}
	return pool, nil
}
