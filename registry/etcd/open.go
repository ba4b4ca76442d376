package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/micro/sidecar/internal/engineurl"
)

const (
	defaultHost   = "127.0.0.1"
	defaultPort   = "2379"
	defaultPrefix = "/micro/registry/"

	// A member that does not answer a ping of the connection for so long is
	// given up, and another one asked. gRPC pings no more often, and etcd takes
	// pings only where a call or a watch is under way.
	pingTime    = 10 * time.Second
	pingTimeout = 3 * time.Second
	// maxAnswer bounds what one answer may make us hold; see pages.
	maxAnswer = 16 << 20
	// maxRequest is etcd's own default limit of a request.
	maxRequest = 3 << 19
)

// config is what an address says.
type config struct {
	endpoints          []string
	tls                *tls.Config
	username, password string
	prefix             string
}

func configure(u *url.URL) (*config, error) {
	if u == nil {
		u = &url.URL{Scheme: "etcd", Host: defaultHost}
	}
	c := &config{username: os.Getenv("ETCD_USERNAME"), password: os.Getenv("ETCD_PASSWORD")}
	switch {
	case u.Scheme != "etcd" && u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("address scheme: expected etcd, http or https, got %q", u.Scheme)
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("address: expected no path, got %q; the keys' prefix is the parameter prefix", u.Path)
	}
	hosts, err := engineurl.Hosts(u, defaultPort)
	if err != nil {
		return nil, err
	}
	if u.User != nil {
		c.username = u.User.Username()
		c.password, _ = u.User.Password()
		if c.username == "" || c.password == "" {
			return nil, errors.New("address: expected user:password before the @")
		}
	}
	p := engineurl.Query(u)
	c.tls = engineurl.TLS(p, u.Scheme == "https")
	c.prefix = strings.TrimRight(p.String("prefix", defaultPrefix), "/") + "/"
	if c.prefix == "/" {
		p.Fail("prefix", "/", "a prefix of keys such as "+defaultPrefix)
	}
	if c.tls != nil && u.Scheme == "http" {
		return nil, errors.New("address: http:// with parameters of TLS: expected etcd:// or https://")
	}
	scheme := "http://"
	if c.tls != nil {
		scheme = "https://"
	}
	for _, host := range hosts {
		c.endpoints = append(c.endpoints, scheme+host)
	}
	return c, p.Err()
}

// client makes the client. It connects when it is used.
func (c *config) client(f *failure) (*clientv3.Client, error) {
	options := clientv3.Config{
		Endpoints: c.endpoints, TLS: c.tls, Logger: zap.NewNop(), // what it has to say comes as errors, too
		DialKeepAliveTime: pingTime, DialKeepAliveTimeout: pingTimeout,
		MaxCallRecvMsgSize: maxAnswer,
		DialOptions:        []grpc.DialOption{grpc.WithChainUnaryInterceptor(f.intercept)},
	}
	if c.username != "" && c.password != "" {
		options.DialOptions = append(options.DialOptions, (&login{user: c.username, password: c.password}).options()...)
	}
	return clientv3.New(options)
}
