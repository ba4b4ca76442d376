//go:build unix

package docs

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

// patient bounds what takes as long as it takes.
const patient = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// matches tells whether got is what the page shows. Blanks count as one: the
// width of a table's columns depends on the ports.
func matches(want, got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(tidy(want)), "…", ".*")
	return regexp.MustCompile(`(?s)^` + pattern + `$`).MatchString(tidy(got))
}

var blanks = regexp.MustCompile(`[ \t]+`)

func tidy(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n") // of HTTP
	return strings.TrimSpace(blanks.ReplaceAllString(text, " "))
}

func TestCommands(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "python3", "node", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	bin := buildPrograms(t)
	run := 0
	for _, path := range pages(t) {
		blocks, err := readBlocks(content(t, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		blocks = slices.DeleteFunc(blocks, func(b block) bool { return b.mark != "test" && b.mark != "page" })
		if run += len(blocks); len(blocks) > 0 {
			t.Run(filepath.Base(path), func(t *testing.T) { runPage(t, bin, path, blocks) })
		}
	}
	if run == 0 {
		t.Error("no page has a block to run")
	}
}

// buildPrograms returns the folder with micro and the greeters.
func buildPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/",
		"../cmd/micro", "../examples/greeter/go/rpcserver", "../examples/greeter/go/webserver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// pagePorts are the ports that pages use: the sidecar's, 9090 to 9099 for the
// reader's own programs, gRPC's, and those of Pebble and of who is certified by
// it.
var pagePorts = regexp.MustCompile(`\b(8081|909[0-9]|50051|14000|500[12])\b`)

// reader follows one page, as a person would who has read nothing else.
type reader struct {
	dir   string // to work in
	env   []string
	ports map[string]string // of the page, and what they are here
}

func newReader(t *testing.T, bin string) *reader {
	t.Helper()
	r := &reader{dir: t.TempDir(), ports: map[string]string{}}
	r.env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "MICRO_") })
	r.env = append(r.env,
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "XDG_STATE_HOME="+r.dir, "MICRO_REGISTRY=embedded",
		"SIDECAR=http://"+r.localise(t, "127.0.0.1:8081"), "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost")
	return r
}

// localise puts free ports in the place of those of the page.
func (r *reader) localise(t *testing.T, text string) string {
	t.Helper()
	return pagePorts.ReplaceAllStringFunc(text, func(port string) string {
		if r.ports[port] == "" {
			r.ports[port] = strconv.Itoa(testserver.FreePort(t))
		}
		return r.ports[port]
	})
}

// command prepares commands to run in a process group of their own.
func (r *reader) command(ctx context.Context, commands string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", commands)
	cmd.Dir, cmd.Env = r.dir, r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// start runs a program until the test ends.
func (r *reader) start(t *testing.T, program string) {
	t.Helper()
	cmd := r.command(t.Context(), "exec "+program)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the context has killed it by then
}

// sh runs commands, ends what they left running, and returns what they printed.
func (r *reader) sh(t *testing.T, commands string) string {
	t.Helper()
	// Not a pipe: a program in the background may keep it open.
	stdout, err := os.CreateTemp(r.dir, "stdout-")
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	stderr, err := os.CreateTemp(r.dir, "stderr-")
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := r.command(ctx, commands)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // fails when nothing is left
	printed := content(t, stdout.Name())
	if err != nil {
		t.Fatalf("%v\n%s\nprinted: %s\nsaid: %s", err, commands, printed, content(t, stderr.Name()))
	}
	return printed
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// uses reports whether a block has the port in it.
func uses(blocks []block, port string) bool {
	return slices.ContainsFunc(blocks, func(b block) bool { return strings.Contains(b.body, port) })
}

// serveGRPC starts a gRPC server at the port that pages call 50051.
func (r *reader) serveGRPC(t *testing.T) {
	t.Helper()
	_, r.ports["50051"], _ = net.SplitHostPort(testserver.StartGRPC(t, testserver.ReflectionV1).Addr)
}

// certify starts an authority at the port that pages call 14000, which looks for
// answers to its challenges at 5001 and 5002. To trust it are ca.pem, and about
// what it issues issuer.pem.
func (r *reader) certify(t *testing.T) {
	t.Helper()
	ca := testserver.Pebble(t, 24*60*60)
	directory, err := url.Parse(ca.Directory)
	if err != nil {
		t.Fatal(err)
	}
	r.ports["14000"] = directory.Port()
	r.ports["5001"], r.ports["5002"] = strconv.Itoa(ca.TLSPort), strconv.Itoa(ca.HTTPPort)
	for name, text := range map[string]string{"ca.pem": content(t, ca.Root), "issuer.pem": string(ca.IssuerPEM())} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// runPage runs a page's blocks one after the other, beside a sidecar with the
// greeters, and with what else they use.
func runPage(t *testing.T, bin, path string, blocks []block) {
	r := newReader(t, bin)
	if uses(blocks, "50051") {
		r.serveGRPC(t)
	}
	if uses(blocks, "14000") {
		r.certify(t)
	}
	r.start(t, r.localise(t, "micro sidecar --address=127.0.0.1:8081 --enable_stats"))
	r.await(t, "/readyz")
	r.start(t, "rpcserver")
	r.start(t, "webserver")
	r.await(t, "/registry?service=go.micro.srv.greeter")
	r.await(t, "/registry?service=go.micro.srv.greeterweb")
	for _, b := range blocks {
		run := r.sh
		if b.mark == "page" {
			run = r.browse
		}
		got := run(t, r.localise(t, b.body))
		if want := r.localise(t, b.output); b.checked && !matches(want, got) {
			t.Errorf("%s:%d: the commands print\n%s\nthe page shows\n%s", path, b.line, got, want)
		}
	}
}

// browse runs a script in Chromium, on a page of the sidecar's own, and returns the
// first line that it logs. Meanwhile messages are published to the topic foo.
func (r *reader) browse(t *testing.T, script string) string {
	t.Helper()
	base := "http://127.0.0.1:" + r.ports["8081"]
	tab, cancel := context.WithTimeout(testserver.Chromium(t), patient)
	defer cancel()
	if err := chromedp.Do(tab, chromedp.Navigate(base+"/livez")); err != nil {
		t.Fatal(err)
	}
	said, err := chromedp.Run(tab, chromedp.Evaluate[string](`new Promise(said => {
		console.log = line => said(String(line));
		setInterval(() => fetch("/broker?topic=foo", {method: "POST", body: "Hello World!"}), 100);
		(0, eval)(`+strconv.Quote(script)+`);
	})`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	return said
}

// await waits until the sidecar answers 200.
func (r *reader) await(t *testing.T, path string) {
	t.Helper()
	client := http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://127.0.0.1:" + r.ports["8081"] + path
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); <-tick.C {
		resp, err := client.Get(url)
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatalf("%s does not answer 200", url)
}

// TestSettings holds the table of settings against micro's own help.
func TestSettings(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", "../cmd/micro", "sidecar", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	table := content(t, "install.md")
	flags := regexp.MustCompile(`(?m)^  --([a-z_]+) .*?(?:\[([^\] ]+)\])?$`).FindAllStringSubmatch(string(out), -1)
	if len(flags) < 30 {
		t.Fatalf("the help has %d flags:\n%s", len(flags), out)
	}
	for _, f := range flags {
		row := regexp.MustCompile("(?m)^\\| `--" + f[1] + "` \\| ?(.*?) ?\\| .*$").FindStringSubmatch(table)
		switch {
		case row == nil:
			t.Errorf("install.md has no row for --%s", f[1])
		case !strings.Contains(row[1], f[2]):
			t.Errorf("install.md says that the default of --%s is %s, micro says %s", f[1], row[1], f[2])
		}
	}
}

var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	unlinked = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks follows every relative link of every page of the repository.
func TestLinks(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		for _, link := range links.FindAllStringSubmatch(content(t, path), -1) {
			if !strings.Contains(link[1], ":") {
				follow(t, path, link[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// follow checks that a link leads to a file and, after #, to a heading in it.
func follow(t *testing.T, page, link string) {
	t.Helper()
	file, anchor, _ := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), filepath.FromSlash(file))
	}
	if _, err := os.Stat(target); err != nil {
		t.Errorf("%s: link %s: %v", page, link, err)
		return
	}
	if anchor == "" {
		return
	}
	for _, heading := range headings.FindAllStringSubmatch(content(t, target), -1) {
		slug := unlinked.ReplaceAllString(strings.ToLower(heading[1]), "")
		if strings.ReplaceAll(slug, " ", "-") == anchor {
			return
		}
	}
	t.Errorf("%s: link %s: no such heading", page, link)
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a.b", "a.b\n", true},
		{"a.b", "axb", false},
		{"a…c", "a\nb\nc", true},
		{"a…c", "a b", false},
		{"a  b\nc", "a b\r\nc", true},
		{"", "", true},
		{"", "a", false},
	} {
		if matches(c.want, c.got) != c.ok {
			t.Errorf("%q shown, %q printed: matches is %v", c.want, c.got, !c.ok)
		}
	}
}
