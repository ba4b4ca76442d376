package httpbroker

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// peerNode is a subscriber as one generation's programs are, by its recording.
type peerNode struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string // "path id header body"
	status int
}

func startNode(t *testing.T, r registry.Registry, name, version, id string, metadata map[string]string, secure bool) *peerNode {
	t.Helper()
	n := &peerNode{status: 200}
	n.Server = httptest.NewUnstartedServer(n)
	if secure {
		n.StartTLS()
	} else {
		n.Start()
	}
	t.Cleanup(n.Close)
	register(t, r, n.Listener.Addr().String(), name, version, id, metadata)
	return n
}

func register(t *testing.T, r registry.Registry, addr, name, version, id string, metadata map[string]string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, _ := strconv.Atoi(port)
	err = r.Register(t.Context(), registry.Service{Name: name, Version: version, Nodes: []registry.Node{
		{ID: id, Address: host, Port: number, Metadata: metadata},
	}}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
}

func (n *peerNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, r.Method+" "+r.RequestURI+" "+r.Header.Get("Content-Type")+" "+string(body))
	w.WriteHeader(n.status)
}

func (n *peerNode) requests() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

func modern(topic string) map[string]string {
	return map[string]string{"broker": "http", "topic": topic, "secure": "false"}
}

func TestEachGenerationIsServedItsWay(t *testing.T) {
	r := memory.New()
	b := open(t, r)
	for _, test := range []struct {
		name, id, path, key string
		metadata            map[string]string
		secure              bool
	}{
		{"topic:t 1", "broker-u.v", "/_sub?id=broker-u.v", ":topic", map[string]string{"secure": "false"}, false},
		{"go.micro.http.broker", "t 1-u", "/_sub?id=t+1-u", ":topic", modern("t 1"), false},
		{"micro.http.broker", "t 1-u", "/?id=t+1-u", "Micro-Topic", modern("t 1"), false},
		{"micro.http.broker", "t 1-s", "/?id=t+1-s", "Micro-Topic", map[string]string{"broker": "http", "topic": "t 1", "secure": "true"}, true},
	} {
		n := startNode(t, r, test.name, broadcast, test.id, test.metadata, test.secure)
		stranger := startNode(t, r, test.name, broadcast, "stranger"+test.id, map[string]string{"broker": "other", "topic": "t 1"}, false)
		elsewhere := startNode(t, r, test.name, broadcast, "elsewhere"+test.id, modern("t 2"), false)
		publish(t, b, "t 1", "body")
		got := n.requests()
		want := "POST " + test.path + ` application/json {"Header":{"` + test.key + `":"t 1","Content-Type":"text/plain","k":"v"},"Body":"Ym9keQ=="}`
		if test.name == "go.micro.http.broker" { // whose servers find the handler by the second
			want = "POST " + test.path + ` application/json {"Header":{":topic":"t 1","Content-Type":"text/plain","Micro-Topic":"t 1","k":"v"},"Body":"Ym9keQ=="}`
		}
		if test.key == "Micro-Topic" {
			want = "POST " + test.path + ` application/json {"Header":{"Content-Type":"text/plain","Micro-Topic":"t 1","k":"v"},"Body":"Ym9keQ=="}`
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("%s got %q\nwant %q", test.name, got, want)
		}
		if !strings.HasPrefix(test.name, "topic:") && len(stranger.requests())+len(elsewhere.requests()) > 0 {
			t.Errorf("%s: nodes of another broker or topic got something", test.name)
		}
		for _, id := range []string{test.id, "stranger" + test.id, "elsewhere" + test.id} {
			s := registry.Service{Name: test.name, Nodes: []registry.Node{{ID: id}}}
			if err := r.Deregister(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEachGenerationDelivers(t *testing.T) {
	r := memory.New()
	b := open(t, r)
	got, _ := subscribe(t, b, "t/1", "q")
	for _, test := range []struct{ name, path, key string }{
		{"topic:t/1", "/_sub", ":topic"},
		{"go.micro.http.broker", "/_sub", ":topic"},
		{"micro.http.broker", "/", "Micro-Topic"},
		{"micro.http.broker", "/_sub", "Micro-Topic"}, // between the generations
	} {
		services, err := r.Get(t.Context(), test.name)
		if err != nil || len(services) != 1 || services[0].Version != "q" || len(services[0].Nodes) != 1 {
			t.Fatalf("%s: %+v, %v", test.name, services, err)
		}
		n := services[0].Nodes[0]
		if n.Metadata["secure"] != "false" {
			t.Errorf("%s: metadata %q", test.name, n.Metadata)
		}
		if test.key == "Micro-Topic" && (n.Metadata["broker"] != "http" || n.Metadata["topic"] != "t/1") {
			t.Errorf("%s: metadata %q", test.name, n.Metadata)
		}
		body, _ := json.Marshal(map[string]any{"Header": map[string]string{test.key: "t/1", "a B": "c"}, "Body": []byte("x")})
		status, answer := post(t, "http://"+n.HostPort()+test.path+"?id="+url.QueryEscape(n.ID), body)
		if status != 200 || answer != "" {
			t.Fatalf("%s: %d %s", test.name, status, answer)
		}
		if d := receive(t, got); d.Topic != "t/1" || string(d.Body) != "x" || !maps.Equal(d.Header, map[string]string{"a B": "c"}) {
			t.Errorf("%s: arrived as %+v", test.name, d)
		}
	}
}

func post(t *testing.T, url string, body []byte) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(answer)
}

func TestDeliveriesThatAreRefused(t *testing.T) {
	r := memory.New()
	b, err := New(Options{Registry: r, MaxMessageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	got, s := subscribe(t, b, "t", "")
	services, err := r.Get(t.Context(), "micro.http.broker")
	if err != nil {
		t.Fatal(err)
	}
	n := services[0].Nodes[0]
	root := "http://" + n.HostPort()
	good := `{"Header":{"Micro-Topic":"t"},"Body":""}`
	big, _ := json.Marshal(envelope{Header: map[string]string{"Micro-Topic": "t"}, Body: make([]byte, 1001)})
	for _, test := range []struct {
		url, body string
		want      int
	}{
		{root + "/?id=" + n.ID, "", 400},
		{root + "/?id=" + n.ID, "[]", 400},
		{root + "/?id=" + n.ID, good + "x", 400},
		{root + "/?id=" + n.ID, `{"Header":null,"Body":null}`, 400},
		{root + "/?id=" + n.ID, `{"Header":{"Micro-Topic":"t"},"Body":"%"}`, 400},
		{root + "/?id=" + n.ID, `{"Header":{"Micro-Topic":["t"]}}`, 400},
		{root + "/?id=" + n.ID, `{"Header":{"Micro-Topic":"other"},"Body":""}`, 400},
		{root + "/?id=" + n.ID, string(big), 413},
		{root + "/?id=" + n.ID, strings.Repeat(" ", 2<<20), 413},
		{root + "/?id=nobody", good, 404},
		{root + "/", good, 404},
		{root + "/elsewhere?id=" + n.ID, good, 404},
	} {
		if status, answer := post(t, test.url, []byte(test.body)); status != test.want || answer == "" {
			t.Errorf("%s %.60s: %d %s, want %d", test.url, test.body, status, answer, test.want)
		}
	}
	response, err := http.Get(root + "/?id=" + n.ID)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 405 || response.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s, Allow %q", response.Status, response.Header.Get("Allow"))
	}
	http.DefaultClient.CloseIdleConnections()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _ := post(t, root+"/?id="+n.ID, []byte(good)); status != 404 {
		t.Errorf("after Close: %d", status)
	}
	if len(got) > 0 {
		t.Errorf("%d refused deliveries arrived", len(got))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"Header":{"Micro-Topic":"t","k":"v"},"Body":"eyJhIjoxfQ=="}`))
	f.Add([]byte(`{"Header":{":topic":"t"},"Body":null}`))
	f.Add([]byte(`{"header":{"Micro-Topic":"t"},"body":"!"}`))
	f.Add([]byte(`{"Header":{"Micro-Topic":1}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		topic, m, err := decode(payload, "Micro-Topic")
		if err != nil {
			return
		}
		if topic == "" {
			t.Fatal("no topic and no error")
		}
		again, err := encode(generations()[0], topic, broker.Message{Header: m.Header, Body: m.Body})
		if err != nil {
			t.Fatal(err)
		}
		topic2, m2, err := decode(again, "Micro-Topic")
		if err != nil || topic2 != topic || !maps.Equal(m2.Header, m.Header) || !bytes.Equal(m2.Body, m.Body) {
			t.Fatalf("%q came back as %q %q %q, %v", payload, topic2, m2.Header, m2.Body, err)
		}
	})
}
