package depshold

import (
	_ "github.com/coder/websocket"
	_ "github.com/gofrs/flock"
	_ "github.com/hashicorp/consul/api"
	_ "github.com/nats-io/nats-server/v2/server"
	_ "github.com/nats-io/nats.go"
	_ "github.com/nats-io/nats.go/jetstream"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "go-micro.dev/v5"
	_ "go-micro.dev/v5/broker"
	_ "go-micro.dev/v5/registry"
	_ "go-micro.dev/v5/registry/consul"
	_ "go-micro.dev/v5/server"
	_ "go-micro.dev/v5/client"
	_ "go.uber.org/goleak"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/sync/singleflight"
	_ "golang.org/x/sys/unix"
	_ "google.golang.org/protobuf/proto"
	_ "pgregory.net/rapid"
)
