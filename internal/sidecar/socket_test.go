package sidecar

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// peerJS returns a command that runs the client or server over npm's ws. It
// takes Node and npm; without them the test is skipped, but not in CI.
func peerJS(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing("%s is needed: %v", tool, err)
		}
	}
	from, err := filepath.Abs("testdata/websocket")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := filepath.Abs("../../.cache/websocket-peer")
	if err != nil {
		t.Fatal(err)
	}
	if err := installOnce(from, cache); err != nil {
		missing("npm's ws cannot be installed: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{filepath.Join(from, "peer.js")}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(cache, "node_modules"))
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	return cmd
}

// installOnce installs what the lock file says, unless it is there.
func installOnce(from, cache string) error {
	lock, err := os.ReadFile(filepath.Join(from, "package-lock.json"))
	if err != nil {
		return err
	}
	stamp := filepath.Join(cache, "installed.json")
	if old, err := os.ReadFile(stamp); err == nil && bytes.Equal(old, lock) {
		return nil
	}
	if err := os.CopyFS(cache, os.DirFS(from)); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	install.Dir = cache
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return os.WriteFile(stamp, lock, 0o600)
}

// serveJS starts the server over npm's ws.
func serveJS(t *testing.T) *httptest.Server {
	t.Helper()
	cmd := peerJS(t, "serve")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it ends no other way
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	port, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	n, perr := strconv.Atoi(port)
	if err != nil || !ok || perr != nil {
		t.Fatalf("the server said %q, %v", line, err)
	}
	return &httptest.Server{Listener: listening{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n}}}
}

// listening stands for a listener that another process has.
type listening struct{ at net.Addr }

func (l listening) Addr() net.Addr          { return l.at }
func (listening) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (listening) Close() error              { return nil }

// serveGo is the same server over coder/websocket.
func serveGo(t *testing.T) *httptest.Server {
	return startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols: []string{"chat"}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover,
		})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(32 << 20)
		for {
			kind, b, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			switch words := strings.SplitN(string(b[:min(len(b), 100)]), " ", 3); {
			case words[0] == "close" && len(words) == 1:
				_ = conn.Close(websocket.StatusNoStatusRcvd, "")
			case words[0] == "close":
				code, _ := strconv.Atoi(words[1])
				_ = conn.Close(websocket.StatusCode(code), words[2])
			case words[0] == "drop":
				return
			default:
				_ = conn.Write(r.Context(), kind, b) // the next read fails, too
			}
		}
	})
}

// TestWebSocketPeers has conversations of every kind between two clients and
// two servers that share no code, over both ways in.
func TestWebSocketPeers(t *testing.T) {
	t.Parallel()
	s := run(t, func(c *Config) { c.Handler = "proxy" })
	for name, serve := range map[string]func(*testing.T) *httptest.Server{"go": serveGo, "js": serveJS} {
		t.Run(name, func(t *testing.T) {
			s.register("go.micro.srv."+name, "n", serve(t), "")
			for _, way := range bothWays {
				t.Run("go over "+way, func(t *testing.T) { checkGo(t, s.url+"/"+name+"/ws?x=%2F", way) })
				t.Run("js over "+way, func(t *testing.T) {
					cmd := peerJS(t, "check", strings.Replace(s.url, "http", "ws", 1)+"/"+name+"/ws?x=%2F")
					if way != "fast" {
						cmd.Env = append(cmd.Env, "ABSOLUTE=1")
					}
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("%v: %s", err, out)
					}
				})
			}
		})
	}
}

// checkGo is the client's part over coder/websocket.
func checkGo(t *testing.T, url, way string) {
	plain := openGo(t, url, way, websocket.CompressionDisabled)
	echoed(t, plain, 16<<20)
	_ = plain.CloseNow()
	conn := openGo(t, url, way, websocket.CompressionContextTakeover)
	if conn.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		echoed(t, conn, size)
	}
	w, err := conn.Writer(t.Context(), websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // more than the writer keeps: there are several frames
		if _, err := io.WriteString(w, strings.Repeat("fragment", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, b, err := conn.Read(t.Context()); err != nil || len(b) != 800_000 {
		t.Errorf("fragments came back as %d bytes, %v", len(b), err)
	}
	read := conn.CloseRead(t.Context())
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := conn.CloseNow(); err != nil {
		t.Error(err)
	}
	<-read.Done()

	for code, reason := range map[websocket.StatusCode]string{1000: "bye", 1001: "", 1009: strings.Repeat("r", 80), 3000: "ü", 4999: "x", 1005: ""} {
		ask := fmt.Sprintf("close %d %s", code, reason)
		if code == websocket.StatusNoStatusRcvd {
			ask = "close"
		}
		conn := openGo(t, url, way, websocket.CompressionDisabled)
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(ask)); err != nil {
			t.Fatal(err)
		}
		var closed websocket.CloseError
		if _, _, err := conn.Read(t.Context()); !errors.As(err, &closed) || closed.Code != code || closed.Reason != reason {
			t.Errorf("%s: ended with %v", ask, err)
		}
		conn = openGo(t, url, way, websocket.CompressionDisabled)
		if err := conn.Close(code, reason); err != nil { // waits for the other side's
			t.Errorf("close with %d %q: %v", code, reason, err)
		}
	}
	conn = openGo(t, url, way, websocket.CompressionDisabled)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("drop")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); err == nil || websocket.CloseStatus(err) != -1 {
		t.Errorf("an abrupt end came as %v", err)
	}
}

// echoed sends a message of the size and has it back.
func echoed(t *testing.T, conn *websocket.Conn, size int) {
	t.Helper()
	text := bytes.Repeat([]byte("\xff0123456789abcdef"), size/17+1)[:size]
	if err := conn.Write(t.Context(), websocket.MessageBinary, text); err != nil {
		t.Fatal(err)
	}
	if kind, b, err := conn.Read(t.Context()); err != nil || kind != websocket.MessageBinary || !bytes.Equal(b, text) {
		t.Fatalf("%d bytes came back as %d, %v", size, len(b), err)
	}
}

// openGo connects, by an absolute-form target over net/http's way.
func openGo(t *testing.T, address, way string, compression websocket.CompressionMode) *websocket.Conn {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if way != "fast" {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: u.Host})
	}
	conn, _, err := websocket.Dial(t.Context(), address, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"other", "chat"}, CompressionMode: compression,
	})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(32 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// A side of a tunnel that does not read holds the other one back, and nothing
// piles up between them.
func TestTunnelsHoldBack(t *testing.T) {
	t.Parallel()
	var written atomic.Int64
	endless := func(conn net.Conn) {
		piece := make([]byte, 64<<10)
		for {
			n, err := conn.Write(piece)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	}
	release := make(chan bool)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		_, _ = io.WriteString(conn, switched)
		if strings.Contains(head, "/down") {
			endless(conn)
			return
		}
		<-release // and not a byte was read
	})
	defer close(release)
	s := proxying(t, n, nil)
	for _, way := range bothWays {
		for _, direction := range []string{"down", "up"} {
			written.Store(0)
			c := dialBy(t, s, way)
			c.send(strings.Replace(upgrade, "/foo/", "/foo/"+direction, 1))
			readHead(c.br)
			var sending sync.WaitGroup
			if direction == "up" {
				sending.Go(func() { endless(c.conn) })
			}
			standsStill(t, &written)
			if got := written.Load(); got > 64<<20 {
				t.Errorf("%s, %s: %d MiB were taken", way, direction, got>>20)
			}
			c.conn.Close()
			sending.Wait()
		}
	}
}

// standsStill waits until a counter has risen and rises no more.
func standsStill(t *testing.T, n *atomic.Int64) {
	t.Helper()
	last, times := int64(0), 0
	eventually(t, "it stands still", func() bool {
		now := n.Load()
		if now != last || now == 0 {
			last, times = now, 0
		}
		times++
		return times > 20
	})
}
