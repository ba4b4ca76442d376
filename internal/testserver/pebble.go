package testserver

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// PebbleServer is Pebble, Let's Encrypt's ACME server for tests. To it every
// name is at 127.0.0.1.
type PebbleServer struct {
	// Directory is the URL of its directory; Root has the certificate to trust
	// about that, as PEM. They stay the same.
	Directory, Root string
	// HTTPPort and TLSPort are where it looks for answers to challenges.
	HTTPPort, TLSPort int

	t          testing.TB
	path       string
	config     string // a file
	management string
	pool       *x509.CertPool
	process    *process // nil while it is stopped
	away       atomic.Bool
}

// Pebble starts Pebble, which issues certificates that are valid for so many
// seconds, and returns when it answers. It is killed when the test ends. The
// binary is pebble on PATH, or what MICRO_TEST_PEBBLE names, or
// .cache/bin/pebble in the checkout.
func Pebble(t testing.TB, valid int) *PebbleServer {
	t.Helper()
	authority := NewAuthority(t)
	s := &PebbleServer{t: t, path: find(t, "pebble", "MICRO_TEST_PEBBLE"), Root: authority.File, pool: authority.Pool}
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	t.Cleanup(s.Stop)
	err := tries(func() error {
		ports := freePorts(t, 4)
		s.HTTPPort, s.TLSPort = ports[0], ports[1]
		listen, management := fmt.Sprint("127.0.0.1:", ports[2]), fmt.Sprint("127.0.0.1:", ports[3])
		s.Directory, s.management = "https://"+s.front(listen)+"/dir", "https://"+management
		text, err := json.Marshal(map[string]any{"pebble": map[string]any{
			"listenAddress": listen, "managementListenAddress": management, "certificate": cert, "privateKey": key,
			"httpPort": s.HTTPPort, "tlsPort": s.TLSPort, "keyAlgorithm": "ecdsa",
			"retryAfter": map[string]int{"authz": 1, "order": 1},
			"profiles":   map[string]any{"default": map[string]any{"description": "default", "validityPeriod": valid}},
		}})
		if err != nil {
			return err
		}
		s.config = filepath.Join(t.TempDir(), "pebble.json")
		if err := os.WriteFile(s.config, text, 0o600); err != nil {
			return err
		}
		return s.start()
	})
	if err != nil {
		t.Fatalf("start pebble: %v", err)
	}
	return s
}

// Stop kills it. With it goes all that it knew.
func (s *PebbleServer) Stop() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Away makes it unreachable, and reachable again with all that it knows.
func (s *PebbleServer) Away(away bool) { s.away.Store(away) }

// front forwards connections to the address while it is not away.
func (s *PebbleServer) front(address string) string {
	return accepting(s.t, func(conn net.Conn) {
		if s.away.Load() {
			return
		}
		behind, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer behind.Close()
		back := make(chan struct{})
		go func() { defer close(back); _, _ = io.Copy(conn, behind); _ = conn.Close() }()
		for b := make([]byte, 4<<10); ; {
			n, err := conn.Read(b)
			if err != nil || s.away.Load() {
				break
			}
			if _, err := behind.Write(b[:n]); err != nil {
				break
			}
		}
		_ = behind.Close() // ends the way back
		<-back
	})
}

// IssuerPEM is the certificate to trust about those that it issues.
func (s *PebbleServer) IssuerPEM() []byte {
	s.t.Helper()
	text, err := s.get(s.management + "/roots/0")
	if err != nil {
		s.t.Fatalf("Pebble's root: %v", err)
	}
	return text
}

// Issuer is whom to trust about the certificates that it issues.
func (s *PebbleServer) Issuer() *x509.CertPool {
	s.t.Helper()
	text := s.IssuerPEM()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		s.t.Fatalf("Pebble's root is %q", text)
	}
	return pool
}

func (s *PebbleServer) get(url string) ([]byte, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.pool},
	}}
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

func (s *PebbleServer) start() error {
	cmd := exec.Command(s.path, "-config", s.config, "-dnsserver", loopbackDNS(s.t))
	cmd.Env = append(cmd.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	p, err := start(cmd)
	if err != nil {
		return err
	}
	err = p.await(startTimeout, func() error {
		_, err := s.get(s.Directory)
		return err
	})
	if err != nil {
		p.kill()
		return err
	}
	s.process = p
	return nil
}

// loopbackDNS starts a name server to which every name is at 127.0.0.1, and
// returns its address. It speaks TCP alone, as Pebble does.
func loopbackDNS(t testing.TB) string {
	t.Helper()
	return accepting(t, func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // it is open
		for answerDNS(conn) == nil {
		}
	})
}

// accepting serves connections until the test ends.
func accepting(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			serving.Go(func() {
				serve(conn)
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
				_ = conn.Close() // it may be
			})
		}
	})
	return l.Addr().String()
}

// answerDNS answers one query, which has its length in front (RFC 1035 section
// 4.2.2).
func answerDNS(conn net.Conn) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	answer, err := loopbackAnswer(query)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}

func loopbackAnswer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	return m.Pack()
}
