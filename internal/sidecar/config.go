package sidecar

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/accesslog"
	"github.com/micro/sidecar/internal/auth"
	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/certs"
	"github.com/micro/sidecar/internal/child"
	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/sdnotify"
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
	Selector     string // one of balance.Selectors(), hash:HEADER, or one of the table's

	App         App
	Healthcheck Healthcheck

	// RegisterTTL and RegisterInterval rule the application's registration.
	RegisterTTL      time.Duration
	RegisterInterval time.Duration

	// Applications are those of the configuration file, beside App.
	Applications []Application

	Engines Engines

	RequestTimeout time.Duration // --client_request_timeout
	ConnectTimeout time.Duration // --client_connect_timeout
	TryTimeout     time.Duration // --client_try_timeout, 0 = see balance.Balancer
	Retries        int           // --client_retries
	MaxConcurrency int           // --max_concurrency, 0 = no limit
	MaxConnections int           // --max_connections, 0 = the system's limit
	PoolSize       int           // --client_pool_size: idle connections kept a node
	MaxBodySize    int64         // --max_body_size, bytes
	RPCAnyAddress  bool

	// Tokens are what clients must show; nil asks for none.
	Tokens *auth.Tokens
	// Subscriptions are durable queues whose messages are posted to the
	// application.
	Subscriptions []Subscription

	CORS         []string
	AllowedHosts []string
	GuardProxy   bool // --guard_proxy
	EnableStats  bool
	Observe      Observe

	DrainDelay    time.Duration
	ShutdownGrace time.Duration

	Control Control
}

// Control is how a running sidecar is spoken to, and whom it speaks to. The
// zero value is a sidecar alone.
type Control struct {
	// Child is the program to run as the application of the flags; nil without.
	Child *child.Process
	// Children are all programs to run: Child, and those of Applications.
	Children *child.Group
	// Changes are what was asked for while it runs.
	Changes <-chan Change
	// Rotated tells that the access log's file was moved away.
	Rotated <-chan struct{}
	// Manager is told of readiness, life and stop.
	Manager *sdnotify.Notifier
}

// Change is what became of a wish to read the configuration again.
type Change struct {
	// Config is what to go on with, nil when nothing changes. What cannot be
	// changed while the sidecar runs is as it was.
	Config *Config
	// Err is why the new configuration cannot be used.
	Err error
}

// Observe is what the sidecar tells of itself.
type Observe struct {
	Version string // of the program
	// AdminAddress is the "host:port" of the listener for probes, scrapes and
	// profiles; "" for none.
	AdminAddress string
	AccessLog    accesslog.Options // no log when Path is ""
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

// Application is an application with all that rules its registration.
type Application struct {
	App              App
	Healthcheck      Healthcheck
	RegisterTTL      time.Duration
	RegisterInterval time.Duration
	// Command is the program that is the application, with its arguments, and
	// Child that program; both nil for one that runs by itself.
	Command []string
	Child   *child.Process

	main bool // the one of the flags
}

// applications are all that the sidecar registers.
func (c *Config) applications() []Application {
	var all []Application
	if c.App.Name != "" {
		all = append(all, Application{
			App: c.App, Healthcheck: c.Healthcheck, RegisterTTL: c.RegisterTTL, RegisterInterval: c.RegisterInterval,
			Child: c.Control.Child, main: true,
		})
	}
	return append(all, c.Applications...)
}

// Healthcheck is the application's probe; none when URL is "".
type Healthcheck struct {
	URL      string
	Interval time.Duration
	Timeout  time.Duration
	Fall     int // failures in a row that take it out
	Rise     int // successes in a row that put it back
	// StartupGrace is how long the application may take to be healthy at first.
	StartupGrace time.Duration
}

// Engines says which registry and broker are used, and where.
type Engines struct {
	Registry        string // "" = the default choice of SPEC; several with commas between
	RegistryAddress string
	Broker          string // "" = the default choice
	BrokerAddress   string
	DataDir         string // "" = the user's default
	EngineAddress   string // where an embedded engine listens when it hosts
	MaxBodySize     int64
	MaxBytes        int64         // of stored messages; 0: as the engine has it
	Sync            time.Duration // see engine.Options
	Temporary       bool          // DataDir ends with the process
	// Host: a sidecar may host the embedded engine; a CLI command only joins.
	Host bool
	// Opening, if not nil, is told which engine is waited for.
	Opening func(what string)
}

func (e Engines) opening(what string) {
	if e.Opening != nil {
		e.Opening(what)
	}
}

// Drivers is the visible table of standard.go: which engines this build knows.
type Drivers struct {
	Registries map[string]func(ctx context.Context, e Env) (registry.Registry, error)
	Brokers    map[string]func(ctx context.Context, e Env) (broker.Broker, error)
	// Selectors are further names for --selector.
	Selectors map[string]balance.Picker
	// Middleware stands in front of all handlers, the first one outermost.
	Middleware []func(http.Handler) http.Handler
	// CheckAddress says what is wrong with the address given for the engine of
	// that name, nil when none was, before anything is started; it may be nil
	// itself.
	CheckAddress func(name string, address *url.URL) error
	// CheckBroker is the same for a broker, nil if it is no different.
	CheckBroker func(name string, address *url.URL) error
}

// Check says what is wrong with an engine's address, or with those of several
// engines, named with commas between.
func (d Drivers) Check(name, address string) error {
	names := strings.Split(name, ",")
	addresses, err := engineurl.Pair(names, address)
	if err != nil {
		return err
	}
	for i, name := range names {
		u, err := parseAddress(name, addresses[i])
		if err != nil {
			return err
		}
		if d.CheckAddress == nil {
			continue
		}
		if err := d.CheckAddress(name, u); err != nil {
			return err
		}
	}
	return nil
}

// Balancer is balance.New, for the table's selectors, too.
func (d Drivers) Balancer(selector string) (*balance.Balancer, error) {
	pick, own := d.Selectors[selector]
	if own {
		selector = "p2c" // all but the choice is as it is with this
	}
	b, err := balance.New(selector)
	if own && err == nil {
		b.Pick = pick
	}
	return b, err
}

// CheckBrokerAddress is Check for a broker's address.
func (d Drivers) CheckBrokerAddress(name, address string) error {
	if d.CheckBroker != nil {
		d.CheckAddress = d.CheckBroker
	}
	return d.Check(name, address)
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
	// MaxBytes is the most that is stored of messages, in bytes (for brokers);
	// 0 leaves it to the engine.
	MaxBytes int64
	Log      *slog.Logger
}
