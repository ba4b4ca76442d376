package examples

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/micro/sidecar/examples/internal/process"
)

// TestMessages publishes orders from Python and Node to a worker in Python, to
// which the sidecar posts them, and to a consumer in Node, which takes them over
// a WebSocket. The sidecar is killed under all of them: nobody has to be started
// again, and nothing is lost.
func TestMessages(t *testing.T) {
	dir := t.TempDir()
	if err := process.Build(t.Context(), dir, "cmd/micro"); err != nil {
		t.Fatal(err)
	}
	worker := start(t, []string{"python3", "messages/python/worker.py"}, "PORT=0")
	var url string
	within(t, patient, "the worker to listen", func() bool {
		url = regexp.MustCompile(`http://\S+`).FindString(worker.Output())
		return url != ""
	})
	s := newSidecar(t, filepath.Join(dir, "micro"), "--subscribe", "topic=orders,queue=billing,url="+url)
	consumer := s.start(t, []string{"node", "--no-warnings", "--experimental-websocket", "messages/node/consumer.mjs"})
	s.queue(t, "billing")
	s.queue(t, "shipping")

	pythons, nodes := []string{"python3", "messages/python/publish.py"}, []string{"node", "messages/node/publish.mjs"}
	s.stores(t, append(pythons, `{"order": 1, "customer": "7"}`))
	s.stores(t, append(nodes, `{"order": 2, "customer": "8"}`))
	s.expect(t, post("/broker?topic=orders", `nonsense`), 200)
	s.expect(t, post("/broker?topic=orders", `{"no": "order"}`), 200)
	says(t, worker, `billed {"order": 1`, `billed {"order": 2`, "refused after 1 attempt(s): expected an order")
	says(t, consumer, `shipped {"order":1`, `shipped {"order":2`, "refused after 1 attempt(s): expected an order")
	within(t, patient, "the refused ones to be dead letters of both queues", func() bool {
		_, body := s.ask(t, request{http.MethodGet, "/broker?dead&topic=orders", "", ""})
		var letters []struct{ Queue string }
		return json.Unmarshal([]byte(body), &letters) == nil && len(letters) == 4 &&
			strings.Count(body, `"queue":"billing"`) == 2 && strings.Count(body, `"queue":"shipping"`) == 2
	})

	s.process.Kill()
	late := []*process.Process{
		s.start(t, append(pythons, `{"order": 3, "customer": "7"}`)),
		s.start(t, append(nodes, `{"order": 4, "customer": "8"}`)),
	}
	for _, p := range late {
		says(t, p, "try 1")
	}
	within(t, patient, "the consumer to find no sidecar", func() bool {
		return strings.Count(consumer.Output(), "trying again") > 1
	})
	s.up(t)
	for _, p := range late {
		says(t, p, "stored")
	}
	says(t, worker, `billed {"order": 3`, `billed {"order": 4`)
	says(t, consumer, `shipped {"order":3`, `shipped {"order":4`)
	for _, p := range []*process.Process{worker, consumer} {
		if err := p.Stop(patient); err != nil {
			t.Errorf("after SIGTERM: %v\n%s", err, p.Output())
		}
	}
}

// queue waits until the durable queue is there.
func (s *sidecar) queue(t *testing.T, name string) {
	t.Helper()
	within(t, patient, "the queue "+name, func() bool {
		status, _ := s.ask(t, request{http.MethodGet, "/broker?queues&topic=orders&queue=" + name, "", ""})
		return status == http.StatusOK
	})
}

// stores runs a publisher to its end.
func (s *sidecar) stores(t *testing.T, line []string) {
	t.Helper()
	p := s.start(t, line)
	says(t, p, "stored")
	<-p.Ended()
	if err := p.Stop(patient); err != nil {
		t.Errorf("%s: %v\n%s", line, err, p.Output())
	}
}

// says waits until the program has printed the words.
func says(t *testing.T, p *process.Process, words ...string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Output())
		}
	})
	for _, word := range words {
		within(t, patient, "the words "+word, func() bool { return strings.Contains(p.Output(), word) })
	}
}
