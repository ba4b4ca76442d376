package sidecar

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/micro/sidecar/internal/testserver"
)

// attempts is what a page tries against the sidecar at the URL %q. Each answers
// with what it came to.
const attempts = `(async () => {
	const base = %q, service = %q;
	const body = JSON.stringify({name: service, nodes: [{id: service + "-1", address: "127.0.0.1", port: 9}]});
	const json = {"Content-Type": "application/json"};
	const how = p => p.then(r => r.type + " " + r.status, () => "failed");
	const opened = o => new Promise(done => { o.onopen = () => { o.close(); done("open") }; o.onerror = () => { o.close(); done("failed") } });
	const out = {};
	out.get = await how(fetch(base + "/registry"));
	out.simplePost = await how(fetch(base + "/registry", {method: "POST", body}));
	out.jsonPost = await how(fetch(base + "/registry", {method: "POST", body, headers: json}));
	out.delete = await how(fetch(base + "/registry", {method: "DELETE", body: JSON.stringify({name: "victim", nodes: [{id: "victim-1"}]})}));
	out.rpc = await how(fetch(base + "/rpc", {method: "POST", body: new URLSearchParams({service: "go.micro.srv.victim", method: "Say.Hello", request: "{}"})}));
	out.path = await how(fetch(base + "/victim/say/hello", {method: "POST", body: "{}", headers: json}));
	out.publish = await how(fetch(base + "/broker?topic=t", {method: "POST", body: "x"}));
	out.socket = await opened(new WebSocket(base.replace("http", "ws") + "/registry"));
	out.subscribe = await opened(new WebSocket(base.replace("http", "ws") + "/broker?topic=t"));
	out.events = await opened(new EventSource(base + "/registry"));
	return out;
})()`

// blind is what a page tries without being able to see what becomes of it.
const blind = `(async () => {
	const base = %q;
	const body = JSON.stringify({name: "evil", nodes: [{id: "evil-1", address: "127.0.0.1", port: 9}]});
	const send = (path, options) => fetch(base + path, {mode: "no-cors", ...options}).catch(() => 0);
	await send("/registry", {method: "POST", body});
	await send("/broker?topic=t", {method: "POST", body: "x"});
	await send("/rpc", {method: "POST", body: new URLSearchParams({service: "go.micro.srv.victim", method: "Say.Hello", request: "{}"})});
	await send("/victim/say/hello", {method: "POST", body: "{}"});
	await new Promise(done => { const i = new Image(); i.onload = i.onerror = done; i.src = base + "/registry?service=victim" });
	for (const [path, fields] of [["/rpc", {service: "go.micro.srv.victim", method: "Say.Hello", request: "{}"}], ["/registry", {[body]: ""}], ["/broker?topic=t", {x: "y"}]]) {
		await new Promise(done => {
			const frame = document.createElement("iframe");
			frame.name = "f" + Math.random();
			document.body.append(frame);
			const form = document.createElement("form");
			Object.assign(form, {method: "POST", action: base + path, target: frame.name, enctype: "text/plain"});
			if (path === "/rpc") form.enctype = "application/x-www-form-urlencoded";
			for (const [name, value] of Object.entries(fields)) {
				const input = document.createElement("input");
				Object.assign(input, {type: "hidden", name, value});
				form.append(input);
			}
			document.body.append(form);
			frame.onload = done;
			form.submit();
		});
	}
	return "tried";
})()`

// browsed is a sidecar with a service, and a page that a browser shows.
type browsed struct {
	*running
	tab   context.Context
	page  string // its port
	calls *atomic.Int64
}

func browse(t *testing.T, change func(c *Config, page string)) *browsed {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>page</title><body>")
	}))
	t.Cleanup(page.Close)
	b := &browsed{calls: new(atomic.Int64)}
	b.page = page.URL[strings.LastIndex(page.URL, ":")+1:]
	b.running = run(t, func(c *Config) { change(c, b.page) })
	victim := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b.calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":0,"result":{}}`)
	}))
	t.Cleanup(victim.Close)
	b.register("go.micro.srv.victim", "victim-1", victim, "")
	b.tab = testserver.Chromium(t, chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"))
	return b
}

// open shows a page and evaluates a script on it.
func open[T any](b *browsed, url, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.tab, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatalf("show %s: %v", url, err)
	}
	got, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("on %s: %v", url, err)
	}
	return got
}

// A page of another origin neither reads nor changes anything, in whatever way
// it asks; one whose origin is in --cors does both.
func TestPagesInABrowser(t *testing.T) {
	b := browse(t, func(c *Config, page string) { c.CORS = []string{"http://shop.example:" + page} })
	refused := map[string]string{}
	allowed := map[string]string{"socket": "open", "subscribe": "open", "events": "open"}
	for _, what := range []string{"get", "simplePost", "jsonPost", "delete", "rpc", "path", "publish", "socket", "subscribe", "events"} {
		refused[what] = "failed"
		if allowed[what] == "" {
			allowed[what] = "cors 200"
		}
	}
	for _, page := range []string{"http://evil.example:" + b.page, "http://127.0.0.1:" + b.page, "http://localhost:" + b.page} {
		if got := open[map[string]string](b, page, fmt.Sprintf(attempts, b.url, "evil")); !reflect.DeepEqual(got, refused) {
			t.Errorf("a page of %s came to %v", page, got)
		}
		if got := open[string](b, page, fmt.Sprintf(blind, b.url)); got != "tried" {
			t.Errorf("a page of %s: %s", page, got)
		}
	}
	if _, services := b.try(http.MethodGet, "/registry", "", ""); strings.Contains(services, "evil") || !strings.Contains(services, "victim") {
		t.Errorf("pages of other origins changed the registry: %s", services)
	}
	if n := b.calls.Load(); n > 0 {
		t.Errorf("pages of other origins made %d calls", n)
	}

	if got := open[map[string]string](b, "http://shop.example:"+b.page, fmt.Sprintf(attempts, b.url, "shop")); !reflect.DeepEqual(got, allowed) {
		t.Errorf("a page of an origin in --cors came to %v", got)
	}
	if _, services := b.try(http.MethodGet, "/registry", "", ""); !strings.Contains(services, "shop") {
		t.Errorf("it registered nothing: %s", services)
	}
	if n := b.calls.Load(); n != 2 {
		t.Errorf("it made %d calls, want 2", n)
	}
}

// A name that was pointed at this machine, so that a page is of the same origin
// as the sidecar, is refused.
func TestReboundNameInABrowser(t *testing.T) {
	b := browse(t, func(c *Config, _ string) { c.CORS = []string{"*"}; c.AllowedHosts = []string{"micro.example"} })
	_, port, _ := strings.Cut(strings.TrimPrefix(b.url, "http://"), ":")
	const script = `(async () => {
		const status = async (path, options) => (await fetch(path, options)).status;
		const opened = new Promise(done => {
			const socket = new WebSocket(location.origin.replace("http", "ws") + "/registry");
			socket.onopen = () => { socket.close(); done(101) };
			socket.onerror = () => done(0);
		});
		return [
			await status("/registry"), await status("/registry", {method: "DELETE", body: "{}"}), await status("/victim/say/hello", {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}}),
			await opened,
		];
	})()`
	for host, want := range map[string][]int{"rebind.example": {403, 403, 403, 0}, "micro.example": {200, 400, 200, 101}} {
		if got := open[[]int](b, "http://"+host+":"+port+"/livez", script); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}
