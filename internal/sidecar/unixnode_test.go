package sidecar

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

// A node on a unix socket is registered, found, proxied to and called.
func TestUnixNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	node := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, r.URL.Path)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":0,"error":null,"result":{"host":%q}}`, r.Host)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = node.Serve(l) }()
	defer func() { _ = node.Close(); <-done }()

	s := run(t, nil)
	const jsonType = "application/json"
	s.expect(200, "", "POST", "/registry", jsonType, fmt.Sprintf(`{"Name":"go.micro.srv.foo","Nodes":[{"Id":"n","Address":"unix:%s"}]}`, path))
	s.expect(200, fmt.Sprintf(`{"name":"go.micro.srv.foo","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"n","address":"unix:%s","port":0,"metadata":{}}]}`, path),
		"GET", "/registry?service=go.micro.srv.foo", "", "")
	s.expect(200, "/foo/x", "GET", "/foo/x", "", "", "Micro-Handler", "proxy")
	s.expect(200, `{"host":"localhost"}`, "POST", "/foo/say/hello", jsonType, `{}`)
	for _, service := range []string{"go.micro.srv.foo", "go.micro.srv.unknown"} { // registered or not
		s.expect(200, `{"host":"localhost"}`, "POST", "/rpc", jsonType, fmt.Sprintf(`{"service":%q,"method":"Say.Hello","address":"unix:%s","request":{}}`, service, path))
	}
	s.refused(400, "unix:/path", "POST", "/rpc", jsonType, `{"service":"a","method":"Say.Hello","address":"unix:x","request":{}}`)
	s.refused(502, "no such file", "POST", "/rpc", jsonType, fmt.Sprintf(`{"service":"a","method":"Say.Hello","address":"unix:%s.not","request":{}}`, path))
	s.refused(400, "unix socket", "POST", "/registry", jsonType, `{"Name":"a","Nodes":[{"Id":"n","Address":"unix:/x","Port":1}]}`)
}
