// Package transport calls one node that somebody else has chosen: it forwards
// an HTTP request as it is, or makes a call in the RPC form that the node
// speaks. It keeps the connections to the nodes and says, when a call failed,
// whether anything of it can have reached the node. It does not choose nodes,
// does not try again on another one, and sets no deadline of its own but the
// one for connecting.
package transport

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Options are the settings of a [Client]; a zero field means its default.
type Options struct {
	// PoolSize is how many idle connections are kept a node; 0 means 64, a
	// negative one none.
	PoolSize int
	// DialTimeout limits how long a connection may take to be made; 0 means
	// one second. The context's deadline holds beside it.
	DialTimeout time.Duration
	// MaxBody is the largest answer to a [Client.Call] in bytes; 0 means 4 MiB.
	MaxBody int64
}

// Client calls nodes. It is safe for concurrent use.
type Client struct {
	upstream *http.Transport
	maxBody  int64
	streams  atomic.Uint64 // see raw
}

const (
	defaultPoolSize    = 64
	defaultDialTimeout = time.Second
	defaultMaxBody     = 4 << 20

	// maxAnswerHead limits the header of a node's answer, in bytes.
	maxAnswerHead = 256 << 10
	// idleTimeout is how long an idle connection is kept: shorter than the
	// two minutes and more that servers commonly allow.
	idleTimeout = 90 * time.Second
	// continueTimeout is how long a body that came with "Expect: 100-continue"
	// waits for the node's word before it is sent all the same (RFC 9110
	// section 10.1.1).
	continueTimeout = time.Second
)

// New returns a client. Close it when it is no longer used.
func New(o Options) *Client {
	if o.PoolSize == 0 {
		o.PoolSize = defaultPoolSize
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	return &Client{
		maxBody: o.MaxBody,
		// No Proxy: a node is called at its own address whatever the
		// environment says. HTTP/2 is not offered.
		upstream: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &countedConn{Conn: conn}, nil
			},
			DisableCompression:     true,
			MaxIdleConnsPerHost:    o.PoolSize,
			IdleConnTimeout:        idleTimeout,
			ExpectContinueTimeout:  continueTimeout,
			MaxResponseHeaderBytes: maxAnswerHead,
			Protocols:              http1Only(),
		},
	}
}

func http1Only() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// Close closes the idle connections; those in use are closed when their
// exchange ends.
func (c *Client) Close() { c.upstream.CloseIdleConnections() }
