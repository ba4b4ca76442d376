package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/netio"
)

// protoHTTP2 is HTTP/2's name in ALPN (RFC 9113 section 3.2).
const protoHTTP2 = "h2"

// protoACME is the protocol of the connections that prove an authority of
// certificates that we are who we say.
const protoACME = "acme-tls/1"

// serverTLS is what the caller says about certificates and clients, with our
// protocols.
func serverTLS(given *tls.Config) *tls.Config {
	config := given.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = slices.Concat([]string{protoHTTP2, "http/1.1"}, given.NextProtos)
	// Of TLS 1.2 the suites that HTTP/2 allows (RFC 9113 section 9.2.2): that
	// a client speaks HTTP/2 and one of the others is found out too late.
	config.CipherSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	// Small records help the first bytes over slow networks; here they are
	// more system calls.
	config.DynamicRecordSizingDisabled = true
	if choose := given.GetConfigForClient; choose != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			return serverTLS(chosen), nil
		}
	}
	return config
}

// handshake makes the TLS handshake, if it is a TLS connection, and reports
// whether HTTP/1.1 is spoken on it. HTTP/2 is handed over.
func (c *fastConn) handshake() bool {
	conn, ok := c.conn.(*tls.Conn)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(c.ctx, headTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
			c.refusePlain(plain.Conn)
		}
		c.f.entrance.log.Debug("TLS handshake failed", "client", c.remote, "error", err)
		return false
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol == protoACME {
		return false // the handshake was the answer (RFC 8737 section 3)
	}
	if state.NegotiatedProtocol == protoHTTP2 {
		if !c.state.CompareAndSwap(idle, active) {
			return false // closed by drain, which from here on leaves it alone
		}
		c.taken = c.f.slow.putHTTP2(conn, nil, &state, c.loopback)
		return false
	}
	c.secure = true
	return true
}

// looksLikeHTTP reports whether what should have been the head of a TLS record
// is the beginning of a request.
func looksLikeHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO", "TRACE", "CONNE", "PRI *":
		return true
	}
	return false
}

// refusePlain answers, without TLS, a client that speaks HTTP without TLS.
func (c *fastConn) refusePlain(conn net.Conn) {
	c.f.mu.Lock()
	c.conn, c.io = conn, netio.New(conn) // what is behind the TLS connection that never was
	c.f.mu.Unlock()
	c.refuse(&http1.Error{Reason: "client sent an HTTP request to an HTTPS server"})
}

// wire is the connection to the client itself, below whatever is above it.
func wire(conn net.Conn) net.Conn {
	switch c := conn.(type) {
	case *handedTLS:
		return wire(c.handed)
	case *handed:
		return wire(c.Conn.Conn)
	case *tls.Conn:
		return c.NetConn()
	}
	return conn
}

// tlsKey is the context key of an HTTP/2 connection's *tls.ConnectionState.
type tlsKey struct{}

// connContext is for [http.Server.ConnContext]: net/http knows nothing of the
// TLS below an HTTP/2 connection of ours nor which listener it is from, and
// forgets what a head looked like.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	loopback := false
	switch c := conn.(type) {
	case *http2Conn:
		loopback = c.loopback
		if c.tls != nil {
			ctx = context.WithValue(ctx, tlsKey{}, c.tls)
		}
	case *handed:
		loopback = c.loopback
		ctx = context.WithValue(ctx, strictKey{}, c.in)
	case *handedTLS:
		loopback = c.loopback
		ctx = context.WithValue(ctx, strictKey{}, c.in)
	}
	if loopback {
		ctx = httpmsg.WithLoopback(ctx)
	}
	return ctx
}

// strictKey is the context key of an HTTP/1 connection's *strict.
type strictKey struct{}

// setTLS sets r.TLS if net/http could not.
func setTLS(r *http.Request) {
	if state, ok := r.Context().Value(tlsKey{}).(*tls.ConnectionState); ok {
		r.TLS = state
	}
}
