package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	answer   = `{"msg":"Hello John"}` // 20 bytes
	envelope = `{"id":0,"result":` + answer + `,"error":null}`
)

// nginx removes its pid file: it is one of its own.
const nginxMain = `daemon off; master_process off; pid %[1]s/%[2]s.pid; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; client_max_body_size 0; sendfile on;
  client_body_temp_path %[1]s/%[2]s-body; proxy_temp_path %[1]s/%[2]s-proxy;
  fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[3]s}
`

// Two backends: one that answers 20 bytes, or files, or when it has read the
// whole of an upload, and one that answers calls.
const nginxBackend = `server { listen %[1]s backlog=4096;
  location / { default_type application/json; return 200 '%[2]s'; }
  location = /plain/1KiB { root %[3]s; }
  location = /plain/1MiB { root %[3]s; }
  location = /plain/upload { client_body_buffer_size 2m; proxy_pass http://%[4]s; proxy_pass_request_body off; proxy_set_header Content-Length ""; } }
server { listen %[4]s backlog=4096; location / { default_type application/json; return 200 '%[5]s'; } }
`

// The hops stream bodies: none waits for the whole of one, or writes to disk.
const nginxHop = `upstream b { server %[1]s; keepalive 1024; keepalive_requests 1000000000; }
server { listen %[2]s backlog=4096; listen %[3]s ssl backlog=4096; listen %[4]s http2 backlog=4096;
  ssl_certificate %[5]s/cert.pem; ssl_certificate_key %[5]s/key.pem;
  location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_request_buffering off; proxy_max_temp_file_size 0; } }
`

const haproxyHop = `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen hop
  bind %[1]s backlog 4096
  bind %[2]s backlog 4096 ssl crt %[5]s/both.pem alpn http/1.1
  bind %[3]s backlog 4096 proto h2
  server b %[4]s
`

// Scripts for wrk.
const (
	callScript   = "call.lua"
	uploadScript = "upload.lua"
)

// writeFiles writes what the servers and wrk read, but their configurations.
func (f *field) writeFiles() error {
	errs := []error{os.Mkdir(f.path("plain"), 0o700)}
	for name, content := range map[string]string{
		"plain/1KiB": strings.Repeat("x", 1<<10),
		"plain/1MiB": strings.Repeat("x", 1<<20),
		callScript: `wrk.method = "POST"
wrk.body = '{"name": "John"}'
wrk.headers["Content-Type"] = "application/json"
`,
		uploadScript: `wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
`,
	} {
		_, err := f.file(name, content)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (f *field) path(name string) string { return filepath.Join(f.dir, name) }

func (f *field) file(name, content string) (path string, err error) {
	path = f.path(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write a file for the servers: %w", err)
	}
	return path, nil
}
