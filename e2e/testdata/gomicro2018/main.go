// Command peer is a go-micro service of 2018 and 2019 for the tests: it
// registers through go-micro's own code, prints its node as a line of JSON, and
// then does what the lines of its standard input say, as the peers of later
// versions beside it do. Each version of go-micro has a file of requirements
// (go.mod has the oldest) and a build tag; all of them have one import path.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/golang/protobuf/ptypes/wrappers"
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/client"
	merrors "github.com/micro/go-micro/errors"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/server"
)

// Say is the handler.
type Say struct{}

// Hello is a request.
type Hello struct {
	Name string `json:"name"`
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
func (*Say) Proto(_ context.Context, req, rsp *wrappers.StringValue) error {
	rsp.Value = "Hello " + req.Value
	return nil
}

func main() {
	var (
		engine  = flag.String("registry", "", "which of this version's registries")
		address = flag.String("address", "", "of the engine")
		name    = flag.String("name", "", "of the service")
		kind    = flag.String("server", "mucp", "mucp or grpc, where this version has it")
		bus     = flag.String("broker", "", "http, nats or rabbitmq, where this version has them")
		at      = flag.String("broker_address", "", "of the broker's server")
		topic   = flag.String("handle", "", "a topic that has handlers")
	)
	flag.Parse()
	log.SetOutput(os.Stderr)
	reg := open(*engine, registry.Addrs(*address))
	b := openBroker(*bus, *at, reg)
	srv, calls := serve(*kind, reg, b,
		server.Name(*name), server.Version("1"), server.Address("127.0.0.1:0"), server.Registry(reg), server.RegisterTTL(10*time.Minute))
	if err := srv.Handle(srv.NewHandler(new(Say))); err != nil {
		log.Fatal(err)
	}
	var in inbox
	if *topic != "" {
		if err := handle(srv, *topic, &in); err != nil {
			log.Fatal(err)
		}
	}
	if err := start(srv); err != nil {
		log.Fatal(err)
	}
	node, err := find(reg, *name)
	if err != nil {
		log.Fatal(err)
	}
	say(node)
	obey(reg, calls, b, &in)
	if err := stop(srv); err != nil {
		log.Fatal(err)
	}
}

// find asks go-micro until it finds.
func find(reg registry.Registry, name string) (found []*registry.Service, err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if found, err = reg.GetService(name); err == nil && len(found) > 0 && len(found[0].Nodes) > 0 {
			return found, nil
		}
	}
	return nil, fmt.Errorf("%s is not found: %v", name, err)
}

// obey does what it is told until there is nothing more to read.
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
			var req, rsp any
			if err := json.Unmarshal([]byte(words[3]), &req); err != nil {
				log.Fatal(err)
			}
			if err := c.Call(context.Background(), c.NewRequest(words[1], words[2], req, client.WithContentType("application/json")), &rsp); err != nil {
				say(err.Error())
			} else {
				say(rsp)
			}
		default:
			say("what?")
		}
	}
}

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

// say prints a line of JSON, marked: go-micro writes its log there, too.
func say(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("=> %s\n", text)
}
