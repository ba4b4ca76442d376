package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/testserver"
)

// TestDiskFull has a sidecar with the embedded engine on a disk that messages
// fill, and then another program to the last byte.
func TestDiskFull(t *testing.T) {
	disk := testserver.Disk(t, 160<<20) // messages leave 128 MiB of it free
	s := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_DATA_DIR="+disk.Path).sidecar(t)
	const publish, pull = "/broker?topic=orders", "/broker?topic=orders&queue=billing&ack=true&prefetch=4"
	const service = `{"Name":"foo","Nodes":[{"Id":"foo-1","Address":"127.0.0.1","Port":9091}]}`
	_ = s.open(pull).conn.CloseNow() // the queue is there from now on

	body, stored := strings.Repeat("x", 256<<10), 0
	var a answer
	for a = s.post(publish, body); a.status == 200 && stored < 1000; a = s.post(publish, body) {
		stored++
	}
	if stored == 0 {
		t.Fatal("nothing was stored")
	}
	a.refused(t, 507, "disk")
	s.post("/registry", service).is(t, 200, "") // there is room for that

	disk.Fill()
	within(t, patient, "registering to be refused", func() bool { a = s.post("/registry", service); return a.status != 200 })
	a.refused(t, 503, "is full")
	s.post(publish, body).refused(t, 507, "disk")
	s.get("/registry?service=foo").is(t, 200, `{"name":"foo","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"foo-1","address":"127.0.0.1","port":9091,"metadata":{}}]}`)
	sub := s.open(pull)
	for range stored {
		sub.acknowledge(len(body))
	}
	within(t, patient, "the queue to be empty", func() bool {
		return strings.Contains(s.get("/broker?queues&topic=orders&queue=billing").body, `"lag":0,"held":0`)
	})

	disk.Empty()
	within(t, patient, "publishing to work again", func() bool { return s.post(publish, "new").status == 200 })
	within(t, patient, "registering to work again", func() bool { return s.post("/registry", service).status == 200 })
	sub.acknowledge(len("new"))
}

// acknowledge takes a message with a body of so many bytes.
func (k *socket) acknowledge(size int) {
	k.t.Helper()
	var frame struct {
		ID   string `json:"Id"`
		Body []byte
	}
	if err := json.Unmarshal(k.next(), &frame); err != nil || len(frame.Body) != size {
		k.t.Fatalf("a message %s of %d bytes, want %d (%v)", frame.ID, len(frame.Body), size, err)
	}
	if err := k.conn.Write(k.t.Context(), websocket.MessageText, []byte(`{"Ack":"`+frame.ID+`"}`)); err != nil {
		k.t.Fatal(err)
	}
}
