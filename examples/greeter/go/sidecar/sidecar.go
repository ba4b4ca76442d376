// Package sidecar announces a Go program to the Micro Sidecar, for as long as
// it runs. It needs nothing but the standard library: copy this page into your
// own project. Registering is one POST, repeated before its ttl is over, and
// one DELETE at the end; a program that is killed outright vanishes from the
// registry when the ttl has passed.
package sidecar

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// URL returns where the sidecar is: $SIDECAR, or its usual address.
func URL() string { return cmp.Or(os.Getenv("SIDECAR"), "http://127.0.0.1:8081") }

// Run serves handler on a free loopback port until SIGINT or SIGTERM,
// registered under name all the while.
func Run(name string, handler http.Handler, metadata map[string]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ttl, err := strconv.Atoi(cmp.Or(os.Getenv("TTL"), "30")) // seconds
	if err != nil || ttl < 1 {
		return fmt.Errorf("TTL %q: expected a number of seconds", os.Getenv("TTL"))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node := map[string]any{"Id": name + "-" + rand.Text(), "Address": listener.Addr().String(), "Metadata": metadata}
	service, err := json.Marshal(map[string]any{"Name": name, "Nodes": []any{node}})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until Shutdown
	log.Printf("%s listens on %s", name, listener.Addr())

	announce(ctx, string(service), ttl)
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(last) // answers what has been asked
}

// announce keeps the service registered until ctx ends.
func announce(ctx context.Context, service string, ttl int) {
	renew := time.NewTicker(time.Duration(ttl) * time.Second / 3)
	defer renew.Stop()
	for ctx.Err() == nil {
		tell(http.MethodPost, fmt.Sprintf("%s/registry?ttl=%ds", URL(), ttl), service)
		select {
		case <-ctx.Done():
		case <-renew.C:
		}
	}
	tell(http.MethodDelete, URL()+"/registry", service)
}

// tell sends the service; a sidecar that is away now is told the next time.
func tell(method, url, service string) {
	request, err := http.NewRequest(method, url, strings.NewReader(service))
	if err != nil {
		log.Print(err)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		log.Print(err)
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		log.Printf("%s %s: %s", method, url, response.Status)
	}
}
