package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served are certificates from files behind a listener that echoes.
type served struct {
	t     *testing.T
	files Files
	certs *FromFiles
	addr  string
	log   testserver.Output
}

// install writes a folder with the files, and has the link "now" point there, as
// Kubernetes does it.
func install(t *testing.T, dir, name, cert, key, clientCA string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"cert": cert, "key": key, "ca": clientCA} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, to), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link-"+name)
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(dir, "now")); err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, dir string) *served {
	t.Helper()
	s := &served{t: t, files: Files{
		Cert: filepath.Join(dir, "now", "cert"), Key: filepath.Join(dir, "now", "key"), ClientCA: filepath.Join(dir, "now", "ca"),
	}}
	var err error
	if s.certs, err = Open(s.files); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.certs.Config())
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); running.Wait() })
	running.Go(func() { s.certs.Watch(ctx, slog.New(slog.NewTextHandler(&s.log, nil))) })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				context.AfterFunc(ctx, func() { _ = conn.Close() })
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return s
}

// dial makes a connection that was spoken on.
func (s *served) dial(config *tls.Config) (net.Conn, *x509.Certificate, error) {
	conn, err := tls.Dial("tcp", s.addr, config)
	if err != nil {
		return nil, nil, err
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn, conn.ConnectionState().PeerCertificates[0], s.echo(conn)
}

func (s *served) echo(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// logged waits for a line.
func (s *served) logged(text string) {
	s.t.Helper()
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(s.log.String(), text); <-ticks.C {
		if time.Now().After(deadline) {
			s.t.Fatalf("the log does not tell %q:\n%s", text, &s.log)
		}
	}
}

func TestReload(t *testing.T) {
	old, next := testserver.NewAuthority(t), testserver.NewAuthority(t)
	dir := t.TempDir()
	valid := time.Now().Add(time.Hour)
	cert, key := old.Issue(valid)
	install(t, dir, "1", cert, key, old.File)
	s := serve(t, dir)
	oldClient := &tls.Config{ServerName: "localhost", RootCAs: old.Pool, Certificates: []tls.Certificate{old.Certificate()}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	newClient := &tls.Config{ServerName: "localhost", RootCAs: next.Pool, Certificates: []tls.Certificate{next.Certificate()}}
	kept, _, err := s.dial(oldClient)
	if err != nil {
		t.Fatal(err)
	}

	// What cannot be used changes nothing, and the log says why.
	expired, expiredKey := old.Issue(time.Now().Add(-time.Minute))
	install(t, dir, "2", expired, expiredKey, old.File)
	s.logged("the certificate expired at ")
	install(t, dir, "3", expired, key, old.File)
	s.logged("private key does not match public key")
	install(t, dir, "4", cert, key, key)
	s.logged("no certificate in PEM form is in it")
	if err := os.Remove(s.files.Cert); err != nil {
		t.Fatal(err)
	}
	s.logged("no such file")
	if _, shown, err := s.dial(oldClient); err != nil || shown.NotAfter.Unix() != valid.Unix() {
		t.Errorf("after files that cannot be used: %v, %v", shown, err)
	}

	// What can is taken, certificate and authorities, and connections stay.
	cert, key = next.Issue(valid)
	install(t, dir, "5", cert, key, next.File)
	s.certs.Look()
	s.logged("certificate reloaded")
	if _, _, err := s.dial(newClient); err != nil {
		t.Errorf("with the new authority: %v", err)
	}
	if err := s.echo(kept); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	// A client of the old authority is refused, also one that resumes a session.
	oldClient.RootCAs = next.Pool
	if _, _, err := s.dial(oldClient); err == nil {
		t.Error("a client of the authority from before is let in")
	}
	resumes := oldClient.Clone()
	resumes.RootCAs, resumes.InsecureSkipVerify = nil, true
	if _, _, err := s.dial(resumes); err == nil {
		t.Error("a client of the authority from before is let in by its session")
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	authority := testserver.NewAuthority(t)
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	_, other := authority.Issue(time.Now().Add(time.Hour))
	early, earlyKey := authority.Issue(time.Now().Add(3 * time.Hour))
	for _, test := range []struct {
		files Files
		want  int
	}{
		{Files{Cert: "/nonexistent", Key: key}, CertFile}, {Files{Cert: cert, Key: "/nonexistent"}, KeyFile},
		{Files{Cert: cert, Key: other}, PairFiles}, {Files{Cert: early, Key: earlyKey}, CertFile},
		{Files{Cert: cert, Key: key, ClientCA: key}, ClientCAFile}, {Files{Cert: "/dev/zero", Key: key}, CertFile},
	} {
		_, err := Open(test.files)
		if wrong, ok := errors.AsType[*FileError](err); !ok || wrong.File != test.want {
			t.Errorf("%+v: %v", test.files, err)
		}
	}
}

func TestDemand(t *testing.T) {
	d, now := newDemand(), time.Now()
	for n := range demandBurst {
		name := string(rune('a' + n))
		if !d.allow(name, now) || !d.allow(name, now) {
			t.Errorf("name %d is refused", n+1)
		}
	}
	if d.allow("late", now) {
		t.Error("one more at once is let through")
	}
	if !d.allow("late", now.Add(demandEvery)) || d.allow("later", now.Add(demandEvery)) {
		t.Error("later it is not one for each interval")
	}
	if len(d.held) != 1 {
		t.Errorf("%d names are held", len(d.held))
	}
}
