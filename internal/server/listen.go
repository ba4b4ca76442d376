package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// unixPrefix stands before the path of a unix socket.
const unixPrefix = "unix:"

// Bind opens the listeners. The first address must be had, and every unix
// socket; a further TCP address may be missing, when the machine lacks its
// address family, or when its port is in use, which is warned about. After an
// error nothing is left open.
func Bind(ctx context.Context, o Options) (*Server, error) {
	s := &Server{options: o, failed: make(chan error, len(o.Addresses))}
	for _, address := range o.Addresses {
		l, err := s.listen(ctx, address)
		if err != nil {
			for _, l := range s.listeners {
				_ = l.Close() // the error to tell is the other one
			}
			return nil, err
		}
		if l != nil {
			s.listeners = append(s.listeners, l)
		}
	}
	return s, nil
}

// listen opens the listener of one address; nil means that it is done without.
func (s *Server) listen(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		l, err := listenUnix(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		return l, nil
	}
	address = s.samePort(address)
	first := len(s.listeners) == 0
	var config net.ListenConfig
	l, err := config.Listen(ctx, network(address), address)
	switch {
	case err == nil:
		return l, nil
	case first && errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program; choose another with --address", address)
	case first:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	case errors.Is(err, syscall.EADDRINUSE):
		s.options.Log.Warn("another program answers at one of the addresses", "address", address, "error", err)
	default:
		s.options.Log.Debug("address left out", "address", address, "error", err)
	}
	return nil, nil
}

// network keeps an IPv4 address from opening IPv6 as well, as 0.0.0.0 would.
func network(address string) string {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// samePort replaces port 0 by the one the system gave to the first TCP listener.
func (s *Server) samePort(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != "0" {
		return address
	}
	for _, l := range s.listeners {
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			return net.JoinHostPort(host, fmt.Sprint(tcp.Port))
		}
	}
	return address
}

// Addresses are what the listeners are bound to, in the form of
// [Options.Addresses].
func (s *Server) Addresses() []string {
	out := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		out[i] = l.Addr().String()
		if l.Addr().Network() == "unix" {
			out[i] = unixPrefix + out[i]
		}
	}
	return out
}

// Loopback reports whether only this machine can reach the listeners: all are
// on loopback or unix sockets.
func (s *Server) Loopback() bool {
	for _, l := range s.listeners {
		if l.Addr().Network() != "unix" && !onLoopback(l) {
			return false
		}
	}
	return true
}

// onLoopback reports whether l is bound to loopback. One on all interfaces is
// not, whichever way a client takes to it.
func onLoopback(l net.Listener) bool {
	a, ok := l.Addr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// unixListener is the listener of a unix socket.
type unixListener struct {
	*net.UnixListener
	path string
	file fs.FileInfo // what it made at path
}

// listenUnix binds a unix socket. What a program that was killed left at path
// is removed; anything else that is there is an error.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.EADDRINUSE): // since we looked
		return nil, errSocketInUse
	case errors.Is(err, syscall.EINVAL):
		return nil, fmt.Errorf("%w (systems allow paths of about 100 bytes)", err)
	case err != nil:
		return nil, err
	}
	u := &unixListener{UnixListener: l.(*net.UnixListener), path: path}
	u.SetUnlinkOnClose(false) // Close looks first whose it is
	if u.file, err = os.Lstat(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return u, nil
}

var errSocketInUse = errors.New("another program answers there; choose another path with --address")

// removeStale removes the socket at path if nobody answers on it.
func removeStale(ctx context.Context, path string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something else than a socket; it is left as it is")
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // nothing was said
		return errSocketInUse
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("there is a socket, and whether somebody answers cannot be told: %w", err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(found, now) {
		return errSocketInUse // another program began at the same time
	}
	return os.Remove(path)
}

// Accept implements [net.Listener].
func (l *unixListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &unixConn{conn}, nil
}

// Close stops listening and removes the socket, unless somebody has put
// something else in its place.
func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.file, now) {
		_ = os.Remove(l.path) // what stays behind is found stale by the next one
	}
	return l.UnixListener.Close()
}

// unixConn is a client on a unix socket. What it bound its own end to, if
// anything, is its choice: it says nothing about who it is, and could look like
// an address.
type unixConn struct{ *net.UnixConn }

// RemoteAddr is [httpmsg.UnixClient], what systems call an end without a name.
func (*unixConn) RemoteAddr() net.Addr {
	return &net.UnixAddr{Name: httpmsg.UnixClient, Net: "unix"}
}
