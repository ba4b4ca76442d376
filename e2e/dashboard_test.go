//go:build unix

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/micro/sidecar/internal/testserver"
)

// viewer is a person with a browser.
type viewer struct {
	t   *testing.T
	tab context.Context

	listening *sync.WaitGroup // ends with the tab

	mu        sync.Mutex
	asked     []string // URLs
	complains []string // errors on the console
}

func newViewer(t *testing.T) *viewer {
	t.Helper()
	listening := new(sync.WaitGroup)
	t.Cleanup(listening.Wait) // it ends with the tab, which is gone by then
	v := &viewer{t: t, tab: testserver.Chromium(t), listening: listening}
	if _, err := chromedp.Call(v.tab, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	requests, console := chromedp.Events(v.tab, network.RequestWillBeSent), chromedp.Console(v.tab)
	listening.Go(func() {
		for e, err := range requests {
			if err != nil {
				return
			}
			v.mu.Lock()
			v.asked = append(v.asked, e.Request.URL)
			v.mu.Unlock()
		}
	})
	listening.Go(func() {
		for m, err := range console {
			if err != nil {
				return
			}
			if (m.Type == "error" || m.Type == "warning" || m.Type == chromedp.ConsoleException) && !strings.Contains(m.Text, "getImageData") { // which is this test's
				v.mu.Lock()
				v.complains = append(v.complains, m.Text)
				v.mu.Unlock()
			}
		}
	})
	return v
}

func (v *viewer) do(actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.tab, patient)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		v.t.Fatal(err)
	}
}

// sees waits until an expression of JavaScript is true.
func (v *viewer) sees(what, expression string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.tab, patient)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool]("Boolean("+expression+")", chromedp.WithPollingTimeout(patient))); err != nil {
		text, _ := chromedp.Run(v.tab, chromedp.Evaluate[string]("document.body.innerText"))
		v.t.Fatalf("%s is not seen: %v\n%s", what, err, text)
	}
}

// value evaluates an expression.
func value[T any](v *viewer, expression string) T {
	v.t.Helper()
	got, err := chromedp.Run(v.tab, chromedp.Evaluate[T](expression))
	if err != nil {
		v.t.Fatalf("%s: %v", expression, err)
	}
	return got
}

func (v *viewer) prefers(scheme string) {
	v.t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(v.tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		v.t.Fatal(err)
	}
}

// content requires that nothing was loaded from elsewhere and nobody complained.
func (v *viewer) content(origin string) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, url := range v.asked {
		if !strings.HasPrefix(url, origin+"/stats") && !strings.HasPrefix(url, "data:") {
			v.t.Errorf("the page asked for %s", url)
		}
	}
	for _, text := range v.complains {
		v.t.Errorf("the console says: %s", text)
	}
}

// row is the table's row of a service.
func row(service string) string {
	return fmt.Sprintf(`document.querySelector('tr[data-service=%q]')`, service)
}

// painted counts the pixels of a chart that have about the colour of a property.
const painted = `(chart, property) => {
	const canvas = document.querySelector(chart + " canvas");
	const probe = document.createElement("i");
	probe.style.color = getComputedStyle(document.documentElement).getPropertyValue(property);
	document.body.append(probe);
	const want = getComputedStyle(probe).color.match(/\d+/g).map(Number);
	probe.remove();
	const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
	let n = 0;
	for (let i = 0; i < data.length; i += 4)
		if (data[i + 3] > 200 && [0, 1, 2].every((c) => Math.abs(data[i + c] - want[c]) < 24)) n++;
	return n;
}`

// faint lists texts whose contrast is below WCAG 2.2's AA (success criterion
// 1.4.3).
const faint = `(() => {
	const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); if (c.startsWith("color(")) { m[0] *= 255; m[1] *= 255; m[2] *= 255; } return [m[0], m[1], m[2], m[3] ?? 1]; };
	const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
	const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const under = (e) => { const stack = []; for (; e; e = e.parentElement) stack.push(parse(getComputedStyle(e).backgroundColor)); return stack.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]); };
	const out = [];
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement, style = getComputedStyle(e);
		if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest(".hidden, .skip, script, noscript")) continue;
		const below = under(e), text = over(parse(style.color), below);
		const [a, b] = [light(text), light(below)].sort((x, y) => y - x);
		const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
		const ratio = (a + .05) / (b + .05);
		if (ratio < (large ? 3 : 4.5)) out.push(walk.currentNode.data.trim() + ": " + ratio.toFixed(2));
	}
	return out;
})()`

func TestDashboard(t *testing.T) {
	s := newWorld(t, noConsul).sidecar(t, "--registry=embedded", "--enable_stats")
	origin := "http://" + s.addr
	v := newViewer(t)
	v.prefers("light")
	v.do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(origin+"/stats"))
	v.sees("that nothing was called yet", `document.body.dataset.link === "live" && document.querySelector("#services-empty").checkVisibility() && document.querySelector("#services-empty").innerText.includes("No service has been called yet")`)
	v.sees("that no application is there", `document.querySelector("#applications").innerText.includes("--server_name")`)
	v.sees("the engines", `[...document.querySelectorAll("#engines .badge")].map((b) => b.innerText).join() === "up,up"`)

	s.register("", "go.micro.srv.greeter", "greeter-1", newGreeter(t).addr)
	s.register("", "go.micro.srv.greeter", "greeter-2", "127.0.0.1:1")
	s.register("", "go.micro.srv.users", "users-1", newGreeter(t).addr)
	s.load("/greeter/say/hello", john, contentType, jsonType)
	s.load("/users/say/hello", john, contentType, jsonType)
	s.load("/broker?topic=news", "hello")

	t.Run("values", func(t *testing.T) { seesValues(t, v) })
	t.Run("charts", func(t *testing.T) { seesCharts(t, v) })
	t.Run("filter", func(t *testing.T) { filters(t, v) })
	t.Run("keyboard", func(t *testing.T) { goesByKeyboard(t, v) })
	t.Run("one service", func(t *testing.T) { selects(t, v) })
	t.Run("theme and size", func(t *testing.T) { looksEverywhere(t, v) })
	v.content(origin)

	s.stop()
	v.sees("that the sidecar is gone", `document.body.dataset.link === "lost" && document.querySelector("#link").innerText.includes("Disconnected")`)
	v.sees("what was there last", row("go.micro.srv.greeter")+` !== null`)
}

func seesValues(t *testing.T, v *viewer) {
	v.t = t
	greeter := row("go.micro.srv.greeter")
	v.sees("a rate", `Number(`+greeter+`?.querySelector(".rate").innerText) > 1`)
	v.sees("a latency", greeter+`.querySelector(".p99").innerText.match(/[µm]?s$/)`)
	v.sees("the nodes", `[...document.querySelectorAll("tr.node .label small")].some((s) => s.innerText.includes("greeter-1"))`)
	v.sees("that one node fails", `[...document.querySelectorAll("tr.node")].some((r) => r.innerText.includes("greeter-2") && r.querySelector(".badge").dataset.state !== "serving")`)
	v.sees("key figures", `Number(document.querySelector(".figure.rate dd span").innerText) > 1 && document.querySelector(".figure.memory").innerText.includes("MiB")`)
	v.sees("the topic", `document.querySelector("#topics table").innerText.includes("news")`)
	stamp := value[string](v, `document.querySelector("#stamp").innerText`)
	total := value[string](v, `document.querySelector("#topics tbody").innerText`)
	v.sees("that values change", fmt.Sprintf(`document.querySelector("#stamp").innerText !== %q && document.querySelector("#topics tbody").innerText !== %q`, stamp, total))
}

func seesCharts(t *testing.T, v *viewer) {
	v.t = t
	for chart, colours := range map[string][]string{"#chart-rate": {"--c2"}, "#chart-latency": {"--p50", "--p95", "--p99"}} {
		for _, colour := range colours {
			v.sees("a line in "+colour, fmt.Sprintf("(%s)(%q, %q) > 10", painted, chart, colour))
		}
	}
	v.do(chromedp.Focus("#chart-rate .plot"), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.ArrowLeft))
	v.sees("the time of a step", `/^\d\d:\d\d:\d\d$/.test(document.querySelector("#chart-rate .when").innerText)`)
	v.sees("a description", `document.querySelector("#chart-rate .plot").getAttribute("aria-label").includes("2xx")`)
	v.do(chromedp.Focus("#filter"))
	v.sees("now again", `document.querySelector("#chart-rate .when").innerText === "now"`)
	v.do(chromedp.Blur("#filter"), chromedp.KeyEvent("6"))
	v.sees("the hour", `document.querySelector("#span input:checked").value === "60m"`)
	v.sees("a point of the hour", fmt.Sprintf("(%s)('#chart-latency', '--p99') > 2", painted))
	v.do(chromedp.KeyEvent("2"))
	v.sees("two minutes", `document.querySelector("#span input:checked").value === "2m"`)
}

func filters(t *testing.T, v *viewer) {
	v.t = t
	services := `[...document.querySelectorAll("tr.service")].map((r) => r.dataset.service).join()`
	v.do(chromedp.KeyEvent("/"))
	v.sees("the filter in focus", `document.activeElement.id === "filter"`)
	// The protocol types the character though the page has taken the key.
	v.do(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent("users"))
	v.sees("one service", services+` === "go.micro.srv.users"`)
	v.sees("how many of all", `document.querySelector("#services-count").innerText === "1 of 2"`)
	v.do(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent("GREETER-2"))
	v.sees("one node", `[...document.querySelectorAll("tr.node")].length === 1 && `+services+` === "go.micro.srv.greeter"`)
	v.do(chromedp.KeyEvent("-nothing"))
	v.sees("that nothing matches", `document.querySelector("#services-empty").innerText.includes("Nothing matches")`)
	v.do(chromedp.KeyEvent(kb.Escape))
	v.sees("all services", services+` === "go.micro.srv.greeter,go.micro.srv.users"`)
	v.do(chromedp.KeyEvent(kb.Escape))
	v.sees("that the filter is left", `document.activeElement === document.body`)
}

func goesByKeyboard(t *testing.T, v *viewer) {
	v.t = t
	v.do(chromedp.Focus(`tr[data-service="go.micro.srv.greeter"] .toggle`), chromedp.KeyEvent(kb.ArrowLeft))
	v.sees("that nodes are closed", `[...document.querySelectorAll("tr.node")].every((r) => !r.innerText.includes("greeter-")) && document.activeElement.getAttribute("aria-expanded") === "false"`)
	v.do(chromedp.KeyEvent(kb.ArrowDown))
	v.sees("the next service in focus", `document.activeElement.closest("tr").dataset.service === "go.micro.srv.users"`)
	v.do(chromedp.KeyEvent(kb.ArrowUp), chromedp.KeyEvent(kb.Enter))
	v.sees("that nodes are open", `[...document.querySelectorAll("tr.node")].some((r) => r.innerText.includes("greeter-1"))`)
	stamp := value[string](v, `document.querySelector("#stamp").innerText`)
	v.sees("that focus outlives new values", fmt.Sprintf(`document.querySelector("#stamp").innerText !== %q && document.activeElement.classList.contains("toggle")`, stamp))
	// Everything that can be used is reached with Tab, and has a name.
	names := value[[]string](v, `[...document.querySelectorAll("button, input, a[href], [tabindex='0']")].filter((e) => e.checkVisibility())
		.filter((e) => !(e.innerText || e.textContent || e.labels?.[0]?.textContent || e.getAttribute("aria-label") || "").trim()).map((e) => e.outerHTML)`)
	if len(names) > 0 {
		t.Errorf("without a name: %q", names)
	}
}

func selects(t *testing.T, v *viewer) {
	v.t = t
	v.do(chromedp.Click(`tr[data-service="go.micro.srv.users"] .pick`))
	v.sees("which service is meant", `document.querySelector("#scope").checkVisibility() && document.querySelector("#scope-name").innerText === "go.micro.srv.users"`)
	v.sees("that it is marked", row("go.micro.srv.users")+`.querySelector(".pick").getAttribute("aria-pressed") === "true"`)
	v.sees("its own rate", `document.querySelector(".figure.rate dd span").innerText === `+row("go.micro.srv.users")+`.querySelector(".rate").innerText`)
	v.do(chromedp.KeyEvent(kb.Escape))
	v.sees("all services", `!document.querySelector("#scope").checkVisibility()`)
}

func looksEverywhere(t *testing.T, v *viewer) {
	v.t = t
	for _, scheme := range []string{"light", "dark"} {
		v.prefers(scheme)
		v.sees("the colours of the system", fmt.Sprintf(`document.documentElement.dataset.theme === %q`, scheme))
		v.sees("a chart in these colours", fmt.Sprintf("(%s)('#chart-latency', '--p50') > 10", painted))
		if texts := value[[]string](v, faint); len(texts) > 0 {
			t.Errorf("%s: hard to read: %q", scheme, texts)
		}
	}
	for _, width := range []int64{360, 520, 768, 1100, 1440, 1920, 2560} {
		v.do(chromedp.EmulateViewport(width, 900))
		v.sees("a chart that fits", `document.querySelector("#chart-rate canvas").getBoundingClientRect().right <= innerWidth`)
		if got := value[int64](v, `document.scrollingElement.scrollWidth`); got > width {
			t.Errorf("at %d px the page is %d px wide", width, got)
		}
		cut := value[[]string](v, `[...document.querySelectorAll(".figure dd, .legend li, .badge, thead th, .scroller")].filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)`)
		if len(cut) > 0 {
			t.Errorf("at %d px these are cut: %q", width, cut)
		}
	}
	v.do(chromedp.EmulateViewport(1440, 900), chromedp.Click(`#theme label:nth-of-type(2)`))
	v.sees("the light page", `document.documentElement.dataset.theme === "light"`)
	v.do(chromedp.Reload())
	v.sees("that it is remembered", `document.body.dataset.link === "live" && document.documentElement.dataset.theme === "light"`)
}

// With tokens the browser asks for one, and the page goes on with it.
func TestDashboardWithAToken(t *testing.T) {
	const token = "correct-horse-battery"
	w := newWorld(t, noConsul)
	file := filepath.Join(w.home, "tokens")
	if err := os.WriteFile(file, []byte("me:"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.sidecar(t, "--registry=embedded", "--enable_stats", "--auth_token_file="+file)
	origin := "http://" + s.addr
	v := newViewer(t)
	asked := v.enters("me", token)
	v.do(chromedp.Navigate(origin + "/stats"))
	v.sees("that the page is live", `document.body.dataset.link === "live"`)
	if n := asked.Load(); n == 0 {
		t.Error("the browser asked for no password")
	}
	v.content(origin)
}

// enters answers the browser's questions for a password, and counts them.
func (v *viewer) enters(name, password string) *atomic.Int32 {
	v.t.Helper()
	handle := true
	if _, err := chromedp.Call(v.tab, fetch.Enable, fetch.EnableParams{HandleAuthRequests: &handle}); err != nil {
		v.t.Fatal(err)
	}
	asked := new(atomic.Int32)
	questions, paused := chromedp.Events(v.tab, fetch.AuthRequired), chromedp.Events(v.tab, fetch.RequestPaused)
	v.listening.Go(func() {
		for e, err := range questions {
			if err != nil {
				return
			}
			asked.Add(1)
			answer := &fetch.AuthChallengeResponse{Response: "ProvideCredentials", Username: name, Password: password}
			_, _ = chromedp.Call(v.tab, fetch.ContinueWithAuth, fetch.ContinueWithAuthParams{RequestID: e.RequestID, AuthChallengeResponse: answer}) // else the page does not come
		}
	})
	v.listening.Go(func() {
		for e, err := range paused {
			if err != nil {
				return
			}
			_, _ = chromedp.Call(v.tab, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: e.RequestID}) // else the page does not come
		}
	})
	return asked
}
