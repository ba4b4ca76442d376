package engineurl

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLS asks for the parameters of a TLS client and returns what they say, nil
// when there is none of them and on is false. on says that the address asks
// for TLS by itself, with its scheme.
//
//	ca_file      PEM, authorities besides which none counts; else the system's
//	cert_file    PEM, the client's certificate; with key_file
//	key_file     PEM, its key; both are read again for every connection
//	server_name  the name that the server's certificate has to be for
//	insecure     true: the server's certificate is not verified
func TLS(p *Params, on bool) *tls.Config {
	ca, cert, key := p.String("ca_file", ""), p.String("cert_file", ""), p.String("key_file", "")
	name, insecure := p.String("server_name", ""), p.Bool("insecure")
	if !on && ca == "" && cert == "" && key == "" && name == "" && !insecure {
		return nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, InsecureSkipVerify: insecure}
	if ca != "" {
		pool, err := readPool(ca)
		if err != nil {
			p.fail(fmt.Errorf("parameter ca_file: %w", err))
		}
		c.RootCAs = pool
	}
	switch {
	case cert == "" && key == "":
	case cert == "" || key == "":
		p.fail(errors.New("parameters cert_file and key_file: expected both or none"))
	default:
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}
		if _, err := load(); err != nil {
			p.fail(fmt.Errorf("parameters cert_file and key_file: %w", err))
		}
		// Certificates are renewed while a sidecar runs.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}
