package main

import (
	"context"
	"net/http"
	"strings"
	"time"
)

const (
	greeter    = "go.micro.srv.greeter"
	greeterweb = "go.micro.srv.greeterweb"
	john       = `{"name": "John"}`
	helloJohn  = `{"msg":"Hello John"}`
	topic      = "greetings"
)

// through is a line of the CLI that goes through the sidecar.
func (d *demo) through(args ...string) cli {
	return cli{name: d.micro, args: append([]string{"--proxy_address=" + d.address}, args...)}
}

func (d *demo) discovery(ctx context.Context) {
	d.heading("Discovery: who is there?")
	d.do(ctx, d.through("list", "services"), contains(0, greeter, greeterweb))
	d.do(ctx, d.through("get", "service", greeter), contains(0, greeter, "127.0.0.1"))
	d.do(ctx, get(d.url("/registry")), contains(200, `"`+greeter+`"`, `"`+greeterweb+`"`))
	d.do(ctx, get(d.url("/registry?service="+greeter)), contains(200, `"name":"`+greeter+`"`, `"address":"127.0.0.1"`))
}

func (d *demo) rpc(ctx context.Context) {
	d.heading("RPC: the path names service and method")
	d.do(ctx, post(d.url("/greeter/say/hello"), john).with("Content-Type: application/json"), isJSON(200, helloJohn))
	d.do(ctx, post(d.url("/rpc"), "service="+greeter, "method=Say.Hello", "request="+john), isJSON(200, helloJohn))
	d.do(ctx, d.through("call", greeter, "Say.Hello", john), isJSON(0, helloJohn))
	d.do(ctx, d.through("health", greeter), contains(0, "ok"))

	d.heading("A mistake gets the service's own error, or the sidecar's, in one form")
	d.do(ctx, post(d.url("/greeter/say/hello"), `{}`).with("Content-Type: application/json"), contains(400, `"code":400`, greeter))
	d.do(ctx, post(d.url("/nosuch/say/hello"), john).with("Content-Type: application/json"), contains(404, `"code":404`, "go.micro.srv.nosuch"))
}

func (d *demo) proxy(ctx context.Context) {
	d.heading("Proxy: any HTTP request, handed on as it came")
	d.do(ctx, get(d.url("/greeterweb/hello?name=John")).with("Micro-Handler: proxy"), isJSON(200, helloJohn))
}

// messages publishes once a subscriber is live, and waits for it to receive.
func (d *demo) messages(ctx context.Context) {
	d.heading("Messages: published with POST, received with micro subscribe or a WebSocket")
	if d.err != nil {
		return
	}
	line := d.through("subscribe", topic)
	subscriber := d.background("", line.name, line.args...)
	d.until(ctx, "micro subscribe did not start", func() bool {
		return strings.Contains(subscriber.Output(), "subscribed")
	})
	d.do(ctx, post(d.url("/broker?topic="+topic), "Hello World!").with("Timestamp: 1499951537"), contains(200))
	d.do(ctx, d.through("publish", topic, "Hello again"), contains(0))
	d.until(ctx, "the subscriber did not receive both messages", func() bool {
		got := subscriber.Output()
		return strings.Contains(got, "Hello World!") && strings.Contains(got, "Hello again")
	})
	if d.err != nil {
		return
	}
	d.screen.note("Meanwhile, micro subscribe has printed:")
	d.screen.answer(subscriber.Output())
	d.err = subscriber.Stop(stopLimit)
}

func (d *demo) byHand(ctx context.Context) {
	const body = `{"Name":"foo.bar","Nodes":[{"Id":"foo.bar-1","Address":"127.0.0.1","Port":9091}]}`
	const name = "foo.bar"
	node := post(d.url("/registry?ttl=10s"), body).with("Content-Type: application/json")
	gone := post(d.url("/registry"), body).with("Content-Type: application/json").by(http.MethodDelete)

	d.heading("Registering by hand, for ten seconds or until removed")
	d.do(ctx, node, contains(200))
	d.do(ctx, get(d.url("/registry?service="+name)), contains(200, `"foo.bar-1"`, `9091`))
	d.do(ctx, gone, contains(200))
	d.do(ctx, get(d.url("/registry?service="+name)), contains(404, `"code":404`))
}

func (d *demo) watching(ctx context.Context) {
	d.heading("Health and numbers")
	d.do(ctx, get(d.url("/health")), contains(200))
	d.do(ctx, get(d.url("/readyz")), contains(200))
	d.do(ctx, get(d.url("/stats")).with("Accept: application/json"), contains(200, `"counters"`, `"total_reqs"`))
}

// tryYourself ends the demonstration with lines to paste.
func (d *demo) tryYourself() {
	d.heading("Try it yourself, in another terminal")
	d.screen.command(post(d.url("/greeter/say/hello"), `{"name": "you"}`).with("Content-Type: application/json").String())
	d.screen.command(d.through("watch").String())
	d.screen.command(d.through("subscribe", topic).String())
	d.screen.command(d.through("publish", topic, "Hello from here").String())
	d.screen.command("SIDECAR=" + d.url("") + " python3 examples/greeter/python/rpc_server.py")
	d.screen.command("SIDECAR=" + d.url("") + " node examples/greeter/node/client.mjs")
	d.screen.line("\nRunning since " + time.Now().Format(time.TimeOnly) + "; Ctrl-C stops everything.")
}

// heading begins a section, unless something went wrong before.
func (d *demo) heading(text string) {
	if d.err == nil {
		d.screen.heading(text)
	}
}
