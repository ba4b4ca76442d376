package cli

import (
	"errors"
	"fmt"

	"github.com/micro/sidecar/internal/certs"
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
	files, err := certs.Open(certs.Files{Cert: f.cert, Key: f.key, ClientCA: f.clientCA})
	if err != nil {
		return f.explain(given, err)
	}
	c.Sidecar.Certificates, c.Sidecar.TLS = files, files.Config()
	return nil
}

// explain names the setting that a file comes from.
func (f *tlsFiles) explain(given map[string]origin, err error) error {
	wrong, ok := errors.AsType[*certs.FileError](err)
	if !ok {
		return err
	}
	switch wrong.File {
	case certs.CertFile:
		return fmt.Errorf("%s: %w", given["tls_cert_file"], err)
	case certs.KeyFile:
		return fmt.Errorf("%s: %w", given["tls_key_file"], err)
	case certs.ClientCAFile:
		return fmt.Errorf("%s: %w", given["tls_client_ca_file"], err)
	}
	return fmt.Errorf("%s %s and %s %s: %w", given["tls_cert_file"], f.cert, given["tls_key_file"], f.key, err)
}
