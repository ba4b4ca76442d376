// Package certs owns the certificates that the listeners show: those in files,
// which are taken anew when they change, and those that an authority issues by
// ACME (RFC 8555). It does not own the connections, nor what clients of the
// command line trust.
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// Files name what is in PEM form in files.
type Files struct {
	Cert     string // the chain, with the server's own first
	Key      string // the server's private key
	ClientCA string // authorities of clients; "" asks clients for nothing
}

// The names of the files of [Files], for [FileError].
const (
	CertFile = iota
	KeyFile
	PairFiles // certificate and key do not fit together
	ClientCAFile
)

// FileError tells which of the files cannot be used, and why.
type FileError struct {
	File int
	Err  error
}

// Error returns why.
func (e *FileError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *FileError) Unwrap() error { return e.Err }

// FromFiles are certificates from files. They are safe for concurrent use.
type FromFiles struct {
	files   Files
	current atomic.Pointer[tls.Config]
	asked   chan struct{} // holds one request to look now

	// Of Watch alone.
	taken, seen [sha256.Size]byte // what the files held, see digest
	told        time.Time         // NotAfter of the certificate whose end was told
}

// Open reads the files. Its errors are of the type [FileError].
func Open(files Files) (*FromFiles, error) {
	c := &FromFiles{files: files, asked: make(chan struct{}, 1)}
	c.taken = c.digest() // before they are read: what changes after is noticed
	c.seen = c.taken
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Config is what handshakes are made with: each with the certificates that are
// in use when it begins. Connections that were made stay as they are.
func (c *FromFiles) Config() *tls.Config {
	return &tls.Config{
		ClientAuth:         c.current.Load().ClientAuth,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	}
}

// reload reads the files again. After an error, a [FileError], all stays as it
// was.
func (c *FromFiles) reload() error {
	pair, err := c.files.pair(time.Now())
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if c.files.ClientCA != "" {
		if config.ClientCAs, err = ReadPool(c.files.ClientCA); err != nil {
			return &FileError{ClientCAFile, err}
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.current.Store(config)
	return nil
}

// pair reads the certificate and its key, and holds the certificate against
// the clock.
func (f *Files) pair(now time.Time) (tls.Certificate, error) {
	cert, err := readFile(f.Cert)
	if err != nil {
		return tls.Certificate{}, &FileError{CertFile, err}
	}
	key, err := readFile(f.Key)
	if err != nil {
		return tls.Certificate{}, &FileError{KeyFile, err}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, &FileError{PairFiles, err}
	}
	switch leaf := pair.Leaf; {
	case now.After(leaf.NotAfter):
		err = fmt.Errorf("%s: the certificate expired at %s", f.Cert, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		err = fmt.Errorf("%s: the certificate is not valid before %s", f.Cert, leaf.NotBefore.Format(time.RFC3339))
	}
	if err != nil {
		return tls.Certificate{}, &FileError{CertFile, err}
	}
	return pair, nil
}

// ReadPool reads the certificates of authorities, in PEM form.
func ReadPool(path string) (*x509.CertPool, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New(path + ": no certificate in PEM form is in it")
	}
	return pool, nil
}

// maxFile bounds a file, in bytes: certificates of all authorities there are
// take a quarter of it.
const maxFile = 1 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return text, nil
}
