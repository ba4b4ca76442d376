package consul

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/internal/engineurl"
)

// defaultPort is that of an agent's HTTP API.
const defaultPort = "8500"

// configure returns the client's configuration, and that of TLS where the
// address has parameters of it: else Consul's environment says what holds.
func configure(u *url.URL) (*api.Config, *tls.Config, error) {
	config := api.DefaultConfig()
	if u == nil {
		return config, nil, nil
	}
	if err := plain(u); err != nil {
		return nil, nil, err
	}
	config.Address, config.Scheme = u.Host, u.Scheme
	p := engineurl.Query(u)
	if u.Scheme == "consul" {
		config.Scheme = p.Choice("scheme", "http", "https")
		if u.Port() == "" {
			config.Address = net.JoinHostPort(u.Hostname(), defaultPort)
		}
	}
	secure := engineurl.TLS(p, false)
	switch {
	case secure == nil:
	case u.Scheme == "http" || p.Has("scheme") && config.Scheme == "http":
		return nil, nil, errors.New("address: parameters of TLS, but the scheme is http")
	default:
		config.Scheme = "https"
	}
	token, file := p.String("token", ""), p.String("token_file", "")
	switch {
	case token != "" && file != "":
		return nil, nil, errors.New("parameters token and token_file: expected one of them")
	case token != "" || file != "":
		config.Token, config.TokenFile = token, file
	}
	config.Datacenter = p.String("datacenter", p.String("dc", config.Datacenter))
	config.Namespace = p.String("namespace", config.Namespace)
	config.Partition = p.String("partition", config.Partition)
	return config, secure, p.Err()
}

// plain refuses what an agent's address cannot hold.
func plain(u *url.URL) error {
	switch {
	case u.Scheme != "consul" && u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("address scheme: expected consul, http or https, got %q", u.Scheme)
	case strings.Contains(u.Host, ","):
		return errors.New("address: expected one agent, got several")
	case u.Hostname() == "":
		return errors.New("address: expected host:port, got no host")
	case u.User != nil:
		return errors.New("address: expected no user or password; an ACL token is the parameter token")
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("address: expected no path, got %q", u.Path)
	}
	return nil
}

// newTransport returns a transport of the driver's own, so that Close reaches
// its connections and nobody else's. An agent is near: it has moments to
// answer a connection, not half a minute.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   16,
		MaxConnsPerHost:       maxConns,
		IdleConnTimeout:       90 * time.Second,
	}
}

// maxConns bounds what one sidecar takes of the 200 connections that an agent
// grants to a machine: the watches, and as many for what is asked.
const maxConns = 2 * maxWatches

// maxAnswer bounds what one answer of an agent may make us hold.
const maxAnswer = 64 << 20

// limited ends answers that are longer than limit bytes with an error.
type limited struct {
	next  http.RoundTripper
	limit int64
}

func (l limited) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &limitedBody{ReadCloser: response.Body, left: l.limit, limit: l.limit}
	return response, nil
}

type limitedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the agent's answer is longer than %d bytes", b.limit)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
