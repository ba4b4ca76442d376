//go:build grpc

package main

import (
	"github.com/micro/go-micro/server"
	"github.com/micro/go-micro/server/grpc"
)

// To link go-micro's gRPC server changes the encoding of all gRPC in the
// process: go-micro's own etcd code does not work beside it.
func init() {
	newGRPC = func(o ...server.Option) server.Server { return grpc.NewServer(o...) }
}
