//go:build unix

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// The application that the tests run as a sidecar's child is the test binary
// itself, told so by the environment.
const (
	appVar    = "MICRO_TEST_APP"    // "host:port" to serve at
	statusVar = "MICRO_TEST_STATUS" // how it ends after SIGTERM
	stayVar   = "MICRO_TEST_STAY"   // it does not end at SIGTERM
	appStatus = "7"
)

// application serves as the greeter does until SIGTERM; then it asks its
// sidecar once more, lets its requests end, and exits. What it does it says on
// stdout, a line each.
func application(addr string) int {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	g := &greeter{}
	g.health.Store(200)
	l, err := testserver.Listen(addr)
	if err != nil {
		return failed(err)
	}
	server := &http.Server{Handler: g, ReadHeaderTimeout: patient}
	go func() { _ = server.Serve(l) }() // ends with Shutdown
	fmt.Println("serving", os.Getenv("MICRO_PROXY_ADDRESS"), os.Getenv("NOTIFY_SOCKET"))
	for s := range signals {
		fmt.Println("signal", s)
		if end := s == syscall.SIGTERM || s == syscall.SIGINT; !end || os.Getenv(stayVar) != "" {
			continue
		}
		fmt.Println("outbound", ask(os.Getenv("MICRO_SIDECAR_URL")+"/registry"))
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			return failed(err)
		}
		break
	}
	status := 0
	_, _ = fmt.Sscan(os.Getenv(statusVar), &status) // 0 without
	return status
}

// ask returns the status that a URL answers, or why there is none.
func ask(url string) string {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err.Error()
	}
	return fmt.Sprint(resp.StatusCode)
}

// child is an application that runs below a sidecar.
type child struct {
	*sidecar
	app string // its address
}

// child starts a sidecar with an application below it, registered as name.
func (w world) child(t *testing.T, name string, args ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	addr := testserver.DeadAddr(t)
	args = append(args, "--server_name="+name, "--server_address="+addr, "--", self)
	return &child{w.with(appVar+"="+addr).launchAny(t, args...), addr}
}

// serving tells whether the application itself answers.
func (c *child) serving() bool { return ask("http://"+c.app+"/health") == "200" }
