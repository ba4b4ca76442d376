package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/micro/sidecar/bench/internal/process"
)

// field is the backend and the servers in front of it.
type field struct {
	dir      string // for their files
	servers  map[string]server
	cmds     []*exec.Cmd
	sidecars []*process.Sidecar
}

// server is one way into a running process.
type server struct {
	url string // without a path
	pid int    // whose CPU time and memory are the server's
	// counted is the URL of a server with the same code that counts its
	// allocations, and counts where it tells how many there were; "" when there
	// is none.
	counted, counts string
}

// The ways into a hop, by the end of its name: HTTP/1.1, TLS and HTTP/2.
const (
	overTLS   = "-tls"
	overHTTP2 = "-h2"
)

// start starts everything and waits until every server answers.
func (f *field) start(ctx context.Context, micro string) error {
	f.servers = map[string]server{}
	if err := errors.Join(f.writeFiles(), f.writeCertificate()); err != nil {
		return err
	}
	backends, err := free(2)
	if err != nil {
		return err
	}
	pid, err := f.nginx("backend", fmt.Sprintf(nginxBackend, backends[0], answer, f.dir, backends[1], envelope))
	if err != nil {
		return err
	}
	f.servers["backend"] = server{url: "http://" + backends[0], pid: pid}
	if err := f.startOthers(backends[0]); err != nil {
		return err
	}
	if err := f.startSidecars(ctx, micro, backends[0], backends[1]); err != nil {
		return err
	}
	for name, s := range f.servers {
		if err := await(ctx, name, s.url+"/plain/x"); err != nil {
			return err
		}
		if s.counts == "" {
			continue
		}
		if err := errors.Join(await(ctx, name, s.counted+"/plain/x"), await(ctx, name, s.counts)); err != nil {
			return err
		}
	}
	return nil
}

// startOthers starts the hops that are not sidecars.
func (f *field) startOthers(backend string) error {
	a, err := free(9)
	if err != nil {
		return err
	}
	pid, err := f.nginx("nginx", fmt.Sprintf(nginxHop, backend, a[0], a[1], a[2], f.dir))
	if err != nil {
		return err
	}
	f.add("nginx", pid, a[0], a[1], a[2])
	config, err := f.file("haproxy.cfg", fmt.Sprintf(haproxyHop, a[3], a[4], a[5], backend, f.dir))
	if err != nil {
		return err
	}
	if pid, err = f.command("haproxy", "-db", "-q", "-f", config); err != nil {
		return err
	}
	f.add("haproxy", pid, a[3], a[4], a[5])
	if pid, err = f.self("reverse", a[6], a[7], a[8], backend, f.dir); err != nil {
		return err
	}
	f.add("reverse", pid, a[6], a[7], a[6])
	f.count("reverse", f.servers["reverse"].url, a[8])
	return nil
}

// add notes the three ways into a process.
func (f *field) add(name string, pid int, plain, tls, http2 string) {
	f.servers[name] = server{url: "http://" + plain, pid: pid}
	f.servers[name+overTLS] = server{url: "https://" + tls, pid: pid}
	f.servers[name+overHTTP2] = server{url: "http://" + http2, pid: pid}
}

// count notes where a server's allocations are counted.
func (f *field) count(name, counted, counts string) {
	s := f.servers[name]
	s.counted, s.counts = counted, "http://"+counts
	f.servers[name] = s
}

// startSidecars starts one for each handler, one with TLS, and for the first
// two a process of the same code that counts allocations.
func (f *field) startSidecars(ctx context.Context, micro, plain, calls string) error {
	for _, name := range []string{"proxy", "rpc", "proxy" + overTLS} {
		args := []string{"--log_level=warn", "--handler=" + name}
		if name == "proxy"+overTLS {
			args = []string{"--log_level=warn", "--handler=proxy", "--enable_tls", "--tls_cert_file=" + f.path("cert.pem"), "--tls_key_file=" + f.path("key.pem")}
		}
		s, err := process.Start(ctx, micro, f.dir, args...)
		if err != nil {
			return err
		}
		f.sidecars = append(f.sidecars, s)
		f.servers[name] = server{url: s.URL, pid: s.PID}
		for _, n := range nodes(plain, calls) {
			if err := s.Register(ctx, n.name, n.address, n.metadata()); err != nil {
				return err
			}
		}
	}
	f.servers["proxy"+overHTTP2] = f.servers["proxy"] // the same listener
	for _, handler := range []string{"proxy", "rpc"} {
		a, err := free(2)
		if err != nil {
			return err
		}
		if _, err := f.self("micro", handler, a[0], a[1], plain, calls); err != nil {
			return err
		}
		f.count(handler, "http://"+a[0], a[1])
	}
	return nil
}

// node is a service of one node.
type node struct{ name, address, protocol string }

func nodes(plain, calls string) []node {
	return []node{{"plain", plain, ""}, {"envelope", calls, ""}, {"mucp", plain, "mucp"}}
}

func (n node) metadata() string {
	if n.protocol == "" {
		return "{}"
	}
	return fmt.Sprintf(`{"protocol":%q}`, n.protocol)
}
