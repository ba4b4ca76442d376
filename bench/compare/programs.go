package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// nginx starts one of its servers.
func (f *field) nginx(name, servers string) (pid int, err error) {
	config, err := f.file(name+".conf", fmt.Sprintf(nginxMain, f.dir, name, servers))
	if err != nil {
		return 0, err
	}
	return f.command("nginx", "-e", "/dev/null", "-c", config)
}

// self starts this program as a hop.
func (f *field) self(kind string, args ...string) (pid int, err error) {
	path, err := os.Executable()
	if err != nil {
		return 0, err
	}
	return f.command(path, append([]string{"-hop", kind}, args...)...)
}

// command starts a program that is stopped with the field.
func (f *field) command(name string, args ...string) (pid int, err error) {
	cmd := exec.Command(name, args...)
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
	for _, s := range f.sidecars {
		errs = append(errs, s.Stop())
	}
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

// await waits until a server answers at a URL.
func await(ctx context.Context, name, url string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // of our own making
	defer transport.CloseIdleConnections()
	if strings.HasSuffix(name, overHTTP2) {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	client := &http.Client{Transport: transport}
	for tries := 0; ; tries++ {
		resp, err := client.Get(url)
		if err == nil {
			_ = resp.Body.Close()                                                                   // the status is all that matters
			if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusMethodNotAllowed { // a call is a POST
				return nil
			}
			err = errors.New(resp.Status)
		}
		if tries == 500 || ctx.Err() != nil {
			return fmt.Errorf("%s does not answer: %w", name, errors.Join(err, ctx.Err()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
