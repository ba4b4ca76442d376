package nats_test

import (
	"testing"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/registry/nats"
)

// put writes a raw value into the bucket.
func put(t testing.TB, conn *gonats.Conn, key, value string) {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "$KV."+nats.DefaultBucket+"."+key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}
