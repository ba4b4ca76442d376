//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// callRate is how many calls a second the tests of faults make.
const callRate = 500

// result is how a call went.
type result struct {
	begun, ended time.Time
	status       int // 0: no answer
	node         string
	what         string // the answer's body, or the error
}

func (r result) took() time.Duration { return r.ended.Sub(r.begun) }

// traffic is a stream of calls of one kind.
type traffic struct {
	stop    chan struct{}
	stopped chan struct{}

	mu      sync.Mutex
	begun   int
	results []result
}

// call makes one call through a sidecar.
type call func(s *sidecar) (*http.Request, error)

// repeatable is a GET through the proxy, once one that must not be repeated.
func repeatable(s *sidecar) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+s.addr+"/resilient/x", nil)
	if err == nil {
		r.Header.Set("Micro-Handler", "proxy")
	}
	return r, err
}

func once(s *sidecar) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/resilient/say/hello", strings.NewReader(john))
	if err == nil {
		r.Header.Set(contentType, jsonType)
	}
	return r, err
}

// offer makes calls at a rate, whether they are answered or not, until finish.
func offer(t *testing.T, s *sidecar, rate int, c call) *traffic {
	t.Helper()
	l := &traffic{stop: make(chan struct{}), stopped: make(chan struct{})}
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	client := &http.Client{Transport: transport, Timeout: patient}
	go func() {
		defer close(l.stopped)
		defer transport.CloseIdleConnections()
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		var calls sync.WaitGroup
		defer calls.Wait()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
				calls.Go(func() { l.note(client, s, c) })
			}
		}
	}()
	t.Cleanup(func() { l.finish() })
	return l
}

func (l *traffic) note(client *http.Client, s *sidecar, c call) {
	l.mu.Lock()
	l.begun++
	l.mu.Unlock()
	r := result{begun: time.Now()}
	request, err := c(s)
	if err == nil {
		var answer *http.Response
		if answer, err = client.Do(request); err == nil {
			var body []byte
			body, err = io.ReadAll(answer.Body)
			_ = answer.Body.Close() // it was read
			r.status, r.node, r.what = answer.StatusCode, answer.Header.Get("X-Node"), string(body)
		}
	}
	if err != nil {
		r.status, r.what = 0, err.Error()
	}
	r.ended = time.Now()
	l.mu.Lock()
	l.results = append(l.results, r)
	l.mu.Unlock()
}

// finish ends the calls and returns all results.
func (l *traffic) finish() []result {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	<-l.stopped
	return l.results
}

// well returns how many calls were answered well so far, waiting those that were
// begun and are not over.
func (l *traffic) well() (well, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.results {
		if r.status == 200 {
			well++
		}
	}
	return well, l.begun - len(l.results)
}

// more waits until n more calls were answered well.
func (l *traffic) more(t *testing.T, n int) {
	t.Helper()
	before, _ := l.well()
	defer func() {
		if bad := failures(l.sofar()); t.Failed() && len(bad) > 0 {
			t.Logf("%d failed, like %+v", len(bad), bad[len(bad)-1])
		}
	}()
	within(t, patient, fmt.Sprintf("%d more answers", n), func() bool { now, _ := l.well(); return now >= before+n })
}

// failures returns the calls that were not answered well.
func failures(results []result) []result {
	return slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.status == 200 })
}

// quantile is the time within which a share of the calls was over.
func quantile(results []result, share float64) time.Duration {
	var took []time.Duration
	for _, r := range results {
		took = append(took, r.took())
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0
	}
	return took[int(share*float64(len(took)-1))]
}

// between returns the calls begun in a span of time.
func between(results []result, from, to time.Time) []result {
	return slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.begun.Before(from) || r.begun.After(to) })
}

// enter registers a node, leave takes it out; both return when that is known.
func (n *nodeProcess) enter(t *testing.T, s *sidecar) {
	t.Helper()
	n.change(t, s, http.MethodPost)
	within(t, patient, "the node to be registered", func() bool {
		return strings.Contains(s.get("/registry?service=go.micro.srv.resilient").body, n.addr[strings.LastIndexByte(n.addr, ':')+1:])
	})
}

func (n *nodeProcess) leave(t *testing.T, s *sidecar) {
	t.Helper()
	n.change(t, s, http.MethodDelete)
	within(t, patient, "the node to be gone", func() bool {
		return !strings.Contains(s.get("/registry?service=go.micro.srv.resilient").body, `"`+n.name+`"`)
	})
}

func (n *nodeProcess) change(t *testing.T, s *sidecar, method string) {
	t.Helper()
	body := fmt.Sprintf(`{"Name":"go.micro.srv.resilient","Nodes":[{"Id":%q,"Address":%q}]}`, n.name, n.addr)
	r, err := http.NewRequest(method, "http://"+s.addr+"/registry", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(contentType, jsonType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("%s /registry: %v, %v", method, answer, err)
	}
	_ = answer.Body.Close() // it is empty
}

// threeNodes starts a sidecar and three nodes that it knows.
func threeNodes(t *testing.T, args ...string) (*sidecar, []*nodeProcess) {
	t.Helper()
	s := newWorld(t, noConsul).sidecar(t, append([]string{"--registry=embedded"}, args...)...)
	var nodes []*nodeProcess
	for _, name := range []string{"first", "second", "third"} {
		n := startNode(t, name)
		n.enter(t, s)
		nodes = append(nodes, n)
	}
	return s, nodes
}

// Nodes that are replaced one after the other, in order, cost no call an error.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	s, nodes := threeNodes(t)
	gets, posts := offer(t, s, callRate/2, repeatable), offer(t, s, callRate/2, once)
	gets.more(t, 100)
	for _, old := range nodes {
		fresh := startNode(t, old.name+" again")
		fresh.enter(t, s)
		old.leave(t, s)
		// Who deregisters gives the others time to notice: half a second of calls.
		gets.more(t, callRate/4)
		posts.more(t, callRate/4)
		old.signal(t, syscall.SIGTERM)
		<-old.done
		if status := old.cmd.ProcessState.ExitCode(); status != 0 {
			t.Errorf("node %s ended with status %d", old.name, status)
		}
		gets.more(t, 100)
	}
	for what, results := range map[string][]result{"GET": gets.finish(), "POST": posts.finish()} {
		bad := failures(results)
		t.Logf("%s: %d calls, %d errors, half within %v", what, len(results), len(bad), quantile(results, .5))
		if len(bad) > 0 {
			t.Errorf("%s: of %d calls %d failed, like %+v", what, len(results), len(bad), bad[0])
		}
	}
}

// A node that is killed costs those calls an error that it was at work on and
// that must not be repeated, and no other.
func TestKilledNode(t *testing.T) {
	t.Parallel()
	s, nodes := threeNodes(t)
	gets, posts := offer(t, s, callRate/2, repeatable), offer(t, s, callRate/2, once)
	gets.more(t, callRate)
	posts.more(t, callRate/4)
	killing := time.Now()
	_, atWork := posts.well()
	nodes[1].kill()
	killed := time.Now()
	gets.more(t, 2*callRate)
	posts.more(t, callRate)
	all := gets.finish()
	if bad := failures(all); len(bad) > 0 {
		t.Errorf("GET: of %d calls %d failed, like %+v", len(all), len(bad), bad[0])
	}
	results := posts.finish()
	bad := failures(results)
	most := atWork + len(between(results, killing, killed))
	t.Logf("%d GETs without an error; of %d POSTs %d failed, %d were under way", len(all), len(results), len(bad), most)
	if len(bad) > most {
		t.Errorf("POST: %d failed, %d were under way", len(bad), most)
	}
	for _, r := range bad {
		if r.begun.After(killed) || r.status != 502 {
			t.Errorf("POST: %+v, begun %v after the kill", r, r.begun.Sub(killed))
		}
	}
}

// A node that hangs costs calls a try's time and no error where they may be
// repeated, and is left alone after five; the others are as fast as before. When
// it goes on it gets calls again.
//
// One call in five may be repeated: those that hang are far fewer than the service's
// budget for retries, whatever the machine makes of their rate.
func TestStoppedNode(t *testing.T) {
	t.Parallel()
	const try = 3 * time.Second // and more than a busy machine keeps a healthy node waiting
	s, nodes := threeNodes(t, "--selector=roundrobin", "--client_try_timeout="+try.String(), "--client_request_timeout=20s")
	gets, posts := offer(t, s, callRate/5, repeatable), offer(t, s, callRate*4/5, once)
	gets.more(t, callRate/2)
	posts.more(t, callRate)
	stopping := time.Now()
	nodes[1].signal(t, syscall.SIGSTOP)
	within(t, patient, "calls that hang to be given up", func() bool { return len(failures(posts.sofar())) >= 5 })
	from := time.Now() // the node is out
	gets.more(t, callRate/2)
	posts.more(t, callRate)
	to := time.Now()
	nodes[1].signal(t, syscall.SIGCONT)
	within(t, 2*patient, "the node to be called again", func() bool {
		return slices.ContainsFunc(gets.sofar(), func(r result) bool { return r.begun.After(to) && r.node == nodes[1].name })
	})
	all, results := gets.finish(), posts.finish()
	if bad := failures(all); len(bad) > 0 {
		t.Errorf("GET: of %d calls %d failed, like %+v", len(all), len(bad), bad[0])
	}
	for what, results := range map[string][]result{"GET": all, "POST": results} {
		if longest := quantile(results, 1); longest > 2*try {
			t.Errorf("%s: one took %v, a try may take %v", what, longest, try)
		}
	}
	bad := failures(results)
	for _, r := range bad {
		if r.status != 504 || r.ended.Before(stopping.Add(try/2)) {
			t.Errorf("POST: %+v", r)
		}
	}
	// A call later it is out, but for one that finds out about it.
	if late := between(bad, from, to); len(late) > 3 {
		t.Errorf("%d POSTs failed when the node should have been out", len(late))
	}
	before, during := quantile(between(all, time.Time{}, stopping), .5), quantile(between(all, from, to), .5)
	t.Logf("GET: half within %v before and %v while the node hung; of %d POSTs %d failed", before, during, len(results), len(bad))
	if during > 10*before+100*time.Millisecond {
		t.Errorf("half of the GETs took %v before, and %v while the node hung", before, during)
	}
}

// sofar returns the results that there are.
func (l *traffic) sofar() []result {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.results)
}

// A service that always fails sees a fifth more than what comes, and ten calls a
// second.
func TestFailingServiceIsSpared(t *testing.T) {
	t.Parallel()
	s := newWorld(t, noConsul).sidecar(t, "--registry=embedded", "--client_retries=5")
	seen := make(chan struct{}, 1<<20)
	for _, name := range []string{"a", "b", "c"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			seen <- struct{}{}
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		t.Cleanup(server.Close)
		(&nodeProcess{name: name, addr: server.Listener.Addr().String()}).enter(t, s)
	}
	begun := time.Now()
	gets := offer(t, s, callRate, repeatable)
	within(t, patient, "five seconds of calls", func() bool { return len(gets.sofar()) >= 5*callRate })
	results := gets.finish()
	seconds := time.Since(begun).Seconds()
	most := 1.2*float64(len(results)) + 10*seconds + 10
	t.Logf("of %d calls in %.1f s the service saw %d", len(results), seconds, len(seen))
	if float64(len(seen)) > most || len(seen) <= len(results) {
		t.Errorf("of %d calls in %.1f s the service saw %d, %.0f are allowed", len(results), seconds, len(seen), most)
	}
	for _, r := range results {
		if r.status != 503 || r.what != "" {
			t.Fatalf("the service's own answer became %+v", r)
		}
	}
}
