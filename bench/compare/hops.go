package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// hop is something that stands between wrk and the backend.
type hop struct {
	name   string
	url    string
	script string // for wrk; "" is a plain GET
	pid    int    // whose CPU time is the hop's
}

// field is the backend and the hops in front of it.
type field struct {
	dir  string
	hops []hop
	cmds []*exec.Cmd
}

const (
	answer   = `{"msg":"Hello John"}` // 20 bytes
	envelope = `{"id":0,"result":` + answer + `,"error":null}`
)

// start starts everything and waits until every hop answers.
func (f *field) start(ctx context.Context, micro string) error {
	address, err := free(6)
	if err != nil {
		return err
	}
	plain, rpc, haproxy, nginx, reverse, sidecar := address[0], address[1], address[2], address[3], address[4], address[5]
	servers := fmt.Sprintf(nginxBackend, plain, answer) + fmt.Sprintf(nginxBackend, rpc, envelope)
	if _, err := f.nginx("backend", servers); err != nil {
		return err
	}
	nginxPID, err := f.nginx("nginx", fmt.Sprintf(nginxHop, plain, nginx))
	if err != nil {
		return err
	}
	haproxyPID, err := f.haproxy(haproxy, plain)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	reversePID, err := f.command(nil, self, "-hop", "http://"+reverse+"?to="+plain)
	if err != nil {
		return err
	}
	sidecarPID, err := f.command(nil, micro, "sidecar", "--address="+sidecar, "--data_dir="+filepath.Join(f.dir, "data"),
		"--registry=embedded", "--broker=embedded", "--log_level=warn")
	if err != nil {
		return err
	}
	post, err := f.post()
	if err != nil {
		return err
	}
	proxied, err := f.file("proxy.lua", `wrk.headers["Micro-Handler"] = "proxy"`)
	if err != nil {
		return err
	}
	f.hops = []hop{
		{"HAProxy", "http://" + haproxy + "/plain/x", "", haproxyPID},
		{"nginx", "http://" + nginx + "/plain/x", "", nginxPID},
		{"Go ReverseProxy", "http://" + reverse + "/plain/x", "", reversePID},
		{"micro, proxy", "http://" + sidecar + "/plain/x", proxied, sidecarPID},
		{"micro, RPC to JSON-RPC", "http://" + sidecar + "/envelope/say/hello", post, sidecarPID},
		{"micro, RPC to mucp", "http://" + sidecar + "/mucp/say/hello", post, sidecarPID},
	}
	for _, h := range f.hops {
		if err := await(ctx, h.url); err != nil {
			return err
		}
	}
	for name, node := range map[string]string{"plain": plain, "envelope": rpc, "mucp": plain} {
		if err := register(ctx, sidecar, name, node); err != nil {
			return err
		}
	}
	return nil
}

const nginxMain = `worker_processes 1; master_process off; daemon off; pid %[1]s/%[2]s.pid; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path %[1]s/%[2]s-body; proxy_temp_path %[1]s/%[2]s-proxy;
  fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[3]s}
`

const nginxBackend = `server { listen %s backlog=4096; location / { default_type application/json; return 200 '%s'; } }
`

const nginxHop = `upstream b { server %s; keepalive 1024; keepalive_requests 1000000000; }
server { listen %s backlog=4096; location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; } }
`

const haproxyMain = `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen hop
  bind %s backlog 4096
  server b %s
`

func (f *field) nginx(name, servers string) (pid int, err error) {
	config, err := f.file(name+".conf", fmt.Sprintf(nginxMain, f.dir, name, servers))
	if err != nil {
		return 0, err
	}
	return f.command(nil, "nginx", "-e", "/dev/null", "-c", config)
}

func (f *field) haproxy(listen, backend string) (pid int, err error) {
	config, err := f.file("haproxy.cfg", fmt.Sprintf(haproxyMain, listen, backend))
	if err != nil {
		return 0, err
	}
	return f.command(nil, "haproxy", "-db", "-q", "-f", config)
}

func (f *field) post() (path string, err error) {
	return f.file("post.lua", `wrk.method = "POST"
wrk.body = '{"name": "John"}'
wrk.headers["Content-Type"] = "application/json"
`)
}

func (f *field) file(name, content string) (path string, err error) {
	path = filepath.Join(f.dir, name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// command starts a program that is stopped with the field.
func (f *field) command(env []string, name string, args ...string) (pid int, err error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	f.cmds = append(f.cmds, cmd)
	return cmd.Process.Pid, nil
}

// stop ends all programs.
func (f *field) stop() error {
	var errs []error
	for _, cmd := range f.cmds {
		errs = append(errs, cmd.Process.Signal(syscall.SIGTERM))
	}
	for _, cmd := range f.cmds {
		var status *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &status) { // a program may end by the signal
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// free returns loopback addresses that nobody listens on.
func free(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// await waits until something answers at url.
func await(ctx context.Context, url string) error {
	for tries := 0; ; tries++ {
		resp, err := http.Get(url)
		if err == nil {
			return resp.Body.Close()
		}
		if tries == 500 || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// register tells the sidecar a service with one node.
func register(ctx context.Context, sidecar, name, node string) error {
	metadata := "{}"
	if name == "mucp" {
		metadata = `{"protocol":"mucp"}`
	}
	body := fmt.Sprintf(`{"Name":"go.micro.srv.%s","Nodes":[{"Id":"%[1]s-1","Address":%q,"Metadata":%s}]}`, name, node, metadata)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+sidecar+"/registry", bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("register %s: %s", name, text)
	}
	return nil
}

// serveHop is the ReverseProxy hop: "http://LISTEN?to=BACKEND".
func serveHop(ctx context.Context, text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: u.Query().Get("to")})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 1024}
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // requests that the end of a measurement cuts
	server := &http.Server{Addr: u.Host, Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
