package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"
)

// engine is a running engine.
type engine struct {
	direct []string // flags of a sidecar on it
	relay  *relay   // nil where there is none
	stop   func()
}

// startEngine starts the engine of that name.
func startEngine(ctx context.Context, name, dir string) (*engine, error) {
	if name == "embedded" {
		data, err := os.MkdirTemp(dir, "shared-")
		return &engine{direct: []string{"--data_dir=" + data}, stop: func() {}}, err
	}
	ports, err := freePorts(6)
	if err != nil {
		return nil, err
	}
	address := ports[0]
	data, err := os.MkdirTemp(dir, name+"-")
	if err != nil {
		return nil, err
	}
	var stop func()
	switch name {
	case "nats":
		stop, err = startNATS(address, data)
	case "etcd":
		stop, err = startProgram(ctx, address, "etcd", "--data-dir", data, "--listen-client-urls", "http://"+address,
			"--advertise-client-urls", "http://"+address, "--listen-peer-urls", "http://"+ports[1],
			"--initial-advertise-peer-urls", "http://"+ports[1], "--initial-cluster", "default=http://"+ports[1], "--log-level", "error")
	case "consul":
		_, http, _ := net.SplitHostPort(address)
		_, rpc, _ := net.SplitHostPort(ports[1])
		_, lan, _ := net.SplitHostPort(ports[2])
		stop, err = startProgram(ctx, address, "consul", "agent", "-dev", "-node", "bench", "-log-level", "err", "-bind", "127.0.0.1",
			"-client", "127.0.0.1", "-http-port", http, "-server-port", rpc, "-serf-lan-port", lan,
			"-serf-wan-port", "-1", "-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1")
	default:
		err = errors.New("expected embedded, nats, etcd or consul")
	}
	if err != nil {
		return nil, err
	}
	r, err := newRelay(address)
	if err != nil {
		stop()
		return nil, err
	}
	return &engine{direct: at(name, address), relay: r, stop: func() { r.close(); stop() }}, nil
}

// at are the flags of a sidecar with the engine at an address. Messages are
// not what is measured.
func at(name, address string) []string {
	return []string{"--registry=" + name, "--registry_address=" + address, "--broker=http"}
}

func startNATS(address, dir string) (stop func(), err error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: tcp.Port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(startLimit) {
		return nil, errors.New("the server is not ready")
	}
	return func() { s.Shutdown(); s.WaitForShutdown() }, nil
}

// startLimit bounds the start of an engine.
const startLimit = 30 * time.Second

// startProgram starts a program and waits until it takes connections.
func startProgram(ctx context.Context, address, program string, args ...string) (stop func(), err error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path = filepath.Join(".cache", "bin", program)
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // fails only when it has ended
		_ = cmd.Wait()         // it was killed
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return stop, conn.Close()
		}
		select {
		case <-ctx.Done():
			stop()
			return nil, fmt.Errorf("start %s: %w", program, err)
		case <-tick.C:
		}
	}
}

// freePorts are loopback addresses that nobody listens on.
func freePorts(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // held until all are found, so that they differ
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// relay passes connections on to an engine and counts what is sent to it.
type relay struct {
	address  string
	messages atomic.Int64
	listener net.Listener
	work     errgroup.Group
}

func newRelay(to string) (*relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{address: listener.Addr().String(), listener: listener}
	r.work.Go(func() error {
		for {
			from, err := listener.Accept()
			if err != nil {
				return err
			}
			r.work.Go(func() error { return r.pass(from, to) })
		}
	})
	return r, nil
}

func (r *relay) close() {
	_ = r.listener.Close() // what is open ends with the sidecar
	_ = r.work.Wait()
}

// pass carries one connection until either side ends it.
func (r *relay) pass(from net.Conn, to string) error {
	defer func() { _ = from.Close() }()
	engine, err := net.Dial("tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	r.work.Go(func() error {
		defer func() { _ = from.Close() }()
		return pump(from, engine, nil)
	})
	return pump(engine, from, &r.messages)
}

func pump(to, from net.Conn, count *atomic.Int64) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && count != nil {
			count.Add(1)
		}
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
			return errors.Join(err, werr)
		}
	}
}
