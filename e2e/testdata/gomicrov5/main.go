// Command peer is a go-micro service for the tests: it registers through
// go-micro's own code, prints its node as a line of JSON, and then does what
// the lines of its standard input say: "find NAME" prints what go-micro finds,
// "call NAME METHOD JSON" what go-micro's client gets, "register JSON" registers
// somebody else; events.go has what is about messages. It stops when they end. It is a module of its own: go-micro's
// gRPC server brings go-micro's whole command line with it, and two generations
// of go-micro do not share one.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/debug/handler"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/consul"
	"go-micro.dev/v5/registry/etcd"
	"go-micro.dev/v5/registry/nats"
	"go-micro.dev/v5/selector"
	"go-micro.dev/v5/server"
	"go-micro.dev/v5/transport"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Say is the handler.
type Say struct{}

// newGRPC makes a gRPC server; a build with the tag grpc has it.
var newGRPC func(...server.Option) server.Server

// Hello is a request.
type Hello struct {
	Name string `json:"name"`
	N    int    `json:"n,omitempty"`
}

// Greeting is an answer.
type Greeting struct {
	Msg string `json:"msg"`
}

// Hello greets everybody but Nobody.
func (*Say) Hello(_ context.Context, req *Hello, rsp *Greeting) error {
	if req.Name == "Nobody" {
		return merrors.Forbidden("peer", "I do not greet %s", req.Name)
	}
	rsp.Msg = "Hello " + req.Name
	return nil
}

// Proto greets in protobuf.
func (*Say) Proto(_ context.Context, req, rsp *wrapperspb.StringValue) error {
	rsp.Value = "Hello " + req.Value
	return nil
}

// Count answers one request with n messages.
func (*Say) Count(_ context.Context, s server.Stream) error {
	var req Hello
	if err := s.Recv(&req); err != nil {
		return err
	}
	for i := range req.N {
		if err := s.Send(&Greeting{Msg: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	var (
		engine  = flag.String("registry", "", "consul, etcd, nats, mdns or memory")
		address = flag.String("address", "", "of the engine")
		name    = flag.String("name", "", "of the service")
		kind    = flag.String("server", "mucp", "mucp or grpc")
		bus     = flag.String("broker", "memory", "memory, http, nats or rabbitmq")
		at      = flag.String("broker_address", "", "of the broker's server")
		topic   = flag.String("handle", "", "a topic that has handlers")
	)
	flag.Parse()
	logger.DefaultLogger = quiet()
	reg := open(*engine, *address)
	b := openBroker(*bus, *at, reg)
	calls := client.NewClient(client.Registry(reg), client.Broker(b), client.Transport(transport.NewHTTPTransport()),
		client.Selector(selector.NewSelector(selector.Registry(reg))), client.RequestTimeout(10*time.Second))
	srv := serve(*kind, *name, reg, calls, b)
	var in inbox
	if *topic != "" {
		if err := handle(srv, *topic, &in); err != nil {
			log.Fatal(err)
		}
	}
	if err := srv.Start(); err != nil {
		log.Fatal(err)
	}
	node, err := find(reg, *name)
	if err != nil {
		log.Fatal(err)
	}
	say(node)
	obey(reg, calls, b, &in)
	if err := srv.Stop(); err != nil {
		log.Fatal(err)
	}
}

// open opens go-micro's own registry.
func open(engine, address string) registry.Registry {
	at := registry.Addrs(address)
	switch engine {
	case "consul":
		return consul.NewConsulRegistry(at)
	case "etcd":
		return etcd.NewEtcdRegistry(at)
	case "nats":
		return nats.NewNatsRegistry(at, registry.Timeout(300*time.Millisecond))
	case "memory":
		return registry.NewMemoryRegistry()
	case "mdns":
		return registry.NewMDNSRegistry()
	}
	log.Fatalf("unknown registry %q", engine)
	return nil
}

func serve(kind, name string, reg registry.Registry, c client.Client, b broker.Broker) server.Server {
	options := []server.Option{
		server.Name(name), server.Version("1"), server.Address("127.0.0.1:0"), server.Registry(reg), server.Broker(b),
		server.RegisterTTL(30 * time.Second), server.RegisterInterval(10 * time.Second), server.WithLogger(quiet()),
	}
	var srv server.Server
	if kind == "grpc" {
		srv = newGRPC(options...)
	} else {
		srv = server.NewRPCServer(append(options, server.Transport(transport.NewHTTPTransport()))...)
	}
	for _, h := range []any{new(Say), handler.NewHandler(c)} { // the second as go-micro's services of old had it
		if err := srv.Handle(srv.NewHandler(h)); err != nil {
			log.Fatal(err)
		}
	}
	return srv
}

func quiet() logger.Logger { return logger.NewLogger(logger.WithOutput(io.Discard)) }

// register registers a node of another process.
func register(reg registry.Registry, text string) error {
	var services []*registry.Service
	if err := json.Unmarshal([]byte(text), &services); err != nil {
		return err
	}
	for _, s := range services {
		if err := reg.Register(s, registry.RegisterTTL(10*time.Minute)); err != nil {
			return err
		}
	}
	return nil
}

// find asks go-micro until it finds.
func find(reg registry.Registry, name string) ([]*registry.Service, error) {
	var found []*registry.Service
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if found, err = reg.GetService(name); err == nil && len(found) > 0 && len(found[0].Nodes) > 0 {
			return found, nil
		}
	}
	return found, fmt.Errorf("%s is not there: %w", name, err)
}

// obey does what it is told until nobody tells it more.
func obey(reg registry.Registry, c client.Client, b broker.Broker, in *inbox) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.SplitN(lines.Text(), " ", 4)
		switch {
		case messages(words, b, c, in):
		case words[0] == "find" && len(words) == 2:
			if found, err := find(reg, words[1]); err != nil {
				say(err.Error())
			} else {
				say(found)
			}
		case words[0] == "register":
			say(fmt.Sprint(register(reg, strings.TrimPrefix(lines.Text(), "register "))))
		case words[0] == "call" && len(words) == 4:
			var rsp json.RawMessage
			body := json.RawMessage(words[3])
			req := c.NewRequest(words[1], words[2], &body, client.WithContentType("application/json"))
			if err := c.Call(context.Background(), req, &rsp); err != nil {
				say(err.Error())
			} else {
				say(rsp)
			}
		default:
			say("what?")
		}
	}
}

// say prints a line of JSON, marked: go-micro writes its log there, too.
func say(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("=> %s\n", text)
}
