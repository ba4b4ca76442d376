package main

// row is one kind of load, and the hops that it is measured on.
type row struct {
	name        string
	title       string
	connections int
	driver      driver
	body        int // bytes that go through with a request; 0: a few
	hops        []hop
}

// hop is something that stands between the load and the backend. Its name is
// that of the line in the table.
type hop struct {
	name   string
	server string // which of the field's servers
	path   string
	script string // for wrk, a file of the field's; "" is a plain GET
}

const (
	haproxy = "HAProxy"
	nginx   = "nginx"
	reverse = "Go ReverseProxy"
	direct  = "no hop"
	proxy   = "micro, proxy"
	jsonRPC = "micro, RPC to JSON-RPC"
	mucp    = "micro, RPC to mucp"
)

// plain are the hops to the plain backend; kind is "" or the way in.
func plain(kind, path, script string) []hop {
	return []hop{
		{haproxy, "haproxy" + kind, path, script},
		{nginx, "nginx" + kind, path, script},
		{reverse, "reverse" + kind, path, script},
		{proxy, "proxy" + kind, path, script},
	}
}

// small are the hops with answers of 20 bytes.
func small() []hop {
	return append(plain("", "/plain/x", ""),
		hop{jsonRPC, "rpc", "/envelope/say/hello", callScript},
		hop{mucp, "rpc", "/mucp/say/hello", callScript})
}

// allRows are in this order because the memory that one row made a process
// take is still there in the next: the bodies come first.
var allRows = []row{
	{"1KiB", "answers of 1 KiB, 64 connections", 64, wrk, 1 << 10, plain("", "/plain/1KiB", "")},
	{"1MiB", "answers of 1 MiB, 64 connections", 64, wrk, 1 << 20, plain("", "/plain/1MiB", "")},
	{"1MiB-up", "uploads of 1 MiB, 64 connections", 64, wrk, 1 << 20, plain("", "/plain/upload", uploadScript)},
	{"small-1", "answers of 20 bytes, 1 connection", 1, wrk, 0, append(small(), hop{direct, "backend", "/plain/x", ""})},
	{"small-64", "answers of 20 bytes, 64 connections", 64, wrk, 0, small()},
	{"small-512", "answers of 20 bytes, 512 connections", 512, wrk, 0, small()},
	{"tls", "answers of 20 bytes, TLS to the client, 64 connections", 64, wrk, 0, plain("-tls", "/plain/x", "")},
	{"http2", "answers of 20 bytes, HTTP/2 without TLS, 16 connections of 16 streams", 16, h2load, 0, plain("-h2", "/plain/x", "")},
}
