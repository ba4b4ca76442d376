package sidecar

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/url"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/auth"
	"github.com/micro/sidecar/internal/certs"
	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/registry"
)

// Config is everything a sidecar is told: complete and validated by cli.
type Config struct {
	// Addresses are the listeners' "host:port" or "unix:/path"; all "host:port"
	// but the first may fail when the machine lacks the address family.
	Addresses []string
	TLS       *tls.Config // of the listeners, see [server.Options]; nil without
	// Certificates are the files that TLS is made of; nil when it is not.
	Certificates *certs.FromFiles
	ACME         *certs.ACMEOptions // nil without; takes the place of TLS
	Namespace    string
	Handler      string // rpc or proxy
	Selector     string // one of balance.Selectors(), or hash:HEADER

	App         App
	Healthcheck Healthcheck

	// RegisterTTL and RegisterInterval rule the application's registration.
	RegisterTTL      time.Duration
	RegisterInterval time.Duration

	Engines Engines

	RequestTimeout time.Duration // --client_request_timeout
	Retries        int           // --client_retries
	PoolSize       int           // --client_pool_size: idle connections kept a node
	MaxBodySize    int64         // --max_body_size, bytes
	RPCAnyAddress  bool

	// Tokens are what clients must show; nil asks for none.
	Tokens       *auth.Tokens
	CORS         []string
	AllowedHosts []string
	GuardProxy   bool // --guard_proxy
	EnableStats  bool

	DrainDelay    time.Duration
	ShutdownGrace time.Duration
}

// App is the application that the sidecar registers; none when Name is "".
type App struct {
	Name     string
	Version  string
	ID       string            // "" makes one from name and a random part
	Address  string            // "host:port" where the sidecar reaches it
	Host     string            // what is registered: Advertise, else Address, split
	Port     int               //
	Metadata map[string]string //
}

// Healthcheck is the application's probe; none when URL is "".
type Healthcheck struct {
	URL      string
	Interval time.Duration
	Timeout  time.Duration
	Fall     int // failures in a row that take it out
	Rise     int // successes in a row that put it back
}

// Engines says which registry and broker are used, and where.
type Engines struct {
	Registry        string // "" = the default choice of SPEC
	RegistryAddress string
	Broker          string // "" = the default choice
	BrokerAddress   string
	DataDir         string // "" = the user's default
	EngineAddress   string // where an embedded engine listens when it hosts
	MaxBodySize     int64
	// Host: a sidecar may host the embedded engine; a CLI command only joins.
	Host bool
}

// Drivers is the visible table of cmd/micro: which engines this build knows.
type Drivers struct {
	Registries map[string]func(ctx context.Context, e Env) (registry.Registry, error)
	Brokers    map[string]func(ctx context.Context, e Env) (broker.Broker, error)
	// CheckAddress says what is wrong with the address given for the engine of
	// that name, before anything is started; it may be nil.
	CheckAddress func(name string, address *url.URL) error
}

// Check says what is wrong with an engine's address, if it is not empty.
func (d Drivers) Check(name, address string) error {
	u, err := parseAddress(name, address)
	if err != nil || u == nil || d.CheckAddress == nil {
		return err
	}
	return d.CheckAddress(name, u)
}

// Env is what a driver is opened with.
type Env struct {
	// Address is --registry_address or --broker_address as a URL, nil when it
	// was not given; its scheme is the driver's name unless it was spelled out.
	Address *url.URL
	// Engine starts or joins the embedded engine on first use.
	Engine func(ctx context.Context) (*engine.Engine, error)
	// Registry is what the sidecar discovers through (for brokers).
	Registry registry.Registry
	// MaxBodySize is the largest message body in bytes (for brokers).
	MaxBodySize int64
	Log         *slog.Logger
}
