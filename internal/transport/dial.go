package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/discovery"
)

// unixPrefix marks the address of a node that listens on a unix socket.
const unixPrefix = "unix:"

// The names of the protocols in ALPN (RFC 7301, RFC 9113 section 3.1).
const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
)

// dial makes a connection to peer within the client's timeout. Over TLS the
// node chooses among protocols, and its certificate must be valid for the name
// that the peer gives.
func (c *Client) dial(ctx context.Context, peer discovery.Peer, protocols ...string) (net.Conn, error) {
	network, addr := "tcp", peer.Addr
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		network, addr = "unix", path
	}
	raw, err := c.dialer.DialContext(ctx, network, addr)
	if err != nil || !peer.TLS {
		return raw, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.dialer.Timeout)
	defer cancel()
	config := c.tls.Clone()
	config.ServerName = serverName(peer)
	config.NextProtos = protocols
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", errors.Join(err, raw.Close()))
	}
	return conn, nil
}

// serverName is the name that a node's certificate has to be for.
func serverName(peer discovery.Peer) string {
	if peer.ServerName != "" {
		return peer.ServerName
	}
	return hostname(peer.Addr)
}

// hostname is the host of a node's address, without its port; a unix socket
// is the local host.
func hostname(addr string) string {
	if strings.HasPrefix(addr, unixPrefix) {
		return "localhost"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// authority is the Host of a request that the sidecar itself makes to a node.
func authority(addr string) string {
	if strings.HasPrefix(addr, unixPrefix) {
		return "localhost"
	}
	return addr
}

// negotiated reports whether the node of a new connection speaks HTTP/2.
func negotiated(peer discovery.Peer, conn net.Conn) bool {
	over, ok := conn.(*tls.Conn)
	if !ok {
		return peer.HTTP2
	}
	switch over.ConnectionState().NegotiatedProtocol {
	case alpnHTTP2:
		return true
	case alpnHTTP1:
		return false
	}
	return peer.HTTP2 // the node does not know ALPN
}

// dialer makes connections. The system notices nodes that are gone without a
// word while a connection is quiet, and without asking their programs.
func dialer(timeout time.Duration) net.Dialer {
	return net.Dialer{Timeout: timeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
}
