//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// A worker whose sidecar is told to stop finishes the message it has, and has
// its sidecar for all that it asks for meanwhile: the registry, and publishing
// what came of the work. The message is acknowledged and comes to nobody else;
// those behind it are not taken any more.
func TestWorkerHasItsSidecarToTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_SHUTDOWN_GRACE=60s")
	other := w.sidecar(t)
	begun, proceed := make(chan string, 10), make(chan struct{})
	var own atomic.Pointer[sidecar]
	answers := make(chan string, 2)
	worker := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- r.Header.Get("Micro-Attempt")
		<-proceed
		answers <- fmt.Sprint(own.Load().get("/registry").status, own.Load().post("/broker?topic=results", "done").status)
	}))
	defer worker.Close()
	release := sync.OnceFunc(func() { close(proceed) })
	defer release()
	results := other.open("/broker?topic=results&queue=q&ack=true")
	s := w.sidecar(t, "--subscribe=topic=orders,queue=billing,concurrency=1,url="+worker.URL)
	own.Store(s)
	within(t, patient, "the worker's queue", func() bool { return other.get("/broker?queues&topic=orders&queue=billing").status == 200 })
	for range 3 {
		other.post("/broker?topic=orders", "an order").is(t, 200, "")
	}
	if attempt := <-begun; attempt != "1" {
		t.Errorf("attempt %s", attempt)
	}
	s.signal(syscall.SIGTERM)
	within(t, patient, "the sidecar to stop", func() bool { return strings.Contains(s.log.String(), "msg=stopping") })
	release()
	if got := <-answers; got != "200 200" {
		t.Errorf("the worker's own requests were answered %s, want 200 200", got)
	}
	if status := s.wait(patient); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if frame := results.next(); !strings.Contains(string(frame), `"Body":"ZG9uZQ=="`) {
		t.Errorf("published as the result: %s", frame)
	}
	var queue string
	within(t, patient, "the order to be acknowledged, and no other", func() bool {
		queue = other.get("/broker?queues&topic=orders&queue=billing").body
		return strings.Contains(queue, `"lag":2,"held":0`)
	})
	if n := len(begun); n != 0 {
		t.Errorf("%d messages more were taken: %s", n, queue)
	}
}
