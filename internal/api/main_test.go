package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/monitor"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a handler that says its name and nothing else.
type answers string

func (a answers) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, string(a))
}

func (a answers) Serve(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
	if err := w.Head(http.StatusOK, nil, int64(len(a))); err != nil {
		return httpmsg.ErrAborted
	}
	_, err := io.WriteString(w, string(a))
	return err
}

// newAPI makes an API over reg that is ready and has neither an application
// nor a guard.
func newAPI(t *testing.T, reg registry.Registry) *API {
	t.Helper()
	find := discovery.New(reg, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); find.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran; find.Close() })
	counted := stats.New()
	watched := &monitor.Monitor{
		Version: "1.2.3", Stats: counted, Topics: new(stats.Topics), Sampler: stats.NewSampler(counted), Services: find.Known,
	}
	return &API{
		Discovery:   find,
		Proxy:       answers("proxied"),
		Messaging:   answers("messaging"),
		Ready:       func(context.Context) error { return nil },
		Health:      func(context.Context) health.Result { return health.Result{} },
		Monitor:     watched,
		Metrics:     watched.Metrics(),
		MaxBodySize: 1 << 10,
		Watches:     &streams.Set{},
	}
}

// asked has the API answer a request to one of its own paths.
func asked(t *testing.T, a *API, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	h := a.Own(r.URL.Path)
	if h == nil {
		t.Fatalf("%s is not the API's own", r.URL.Path)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// detail returns the detail of an error in go-micro's form, after its status
// was compared with what it says.
func detail(t *testing.T, status int, body []byte) string {
	t.Helper()
	var e struct {
		ID, Detail, Status string
		Code               int
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%d %q: %v", status, body, err)
	}
	if e.ID != ID || e.Code != status || e.Status != http.StatusText(status) {
		t.Errorf("answer %d says %+v", status, e)
	}
	return e.Detail
}

// answer is a [httpmsg.ResponseWriter] that keeps what was sent.
type answer struct {
	httpmsg.ResponseWriter // nothing else is asked for
	status                 int
	header                 httpmsg.Header
	body                   []byte
	broken                 bool
}

var errGone = errors.New("the client is gone")

func (a *answer) Head(status int, h httpmsg.Header, _ int64) error {
	if a.broken {
		return errGone
	}
	a.status, a.header = status, h
	return nil
}

func (a *answer) Write(p []byte) (int, error) {
	a.body = append(a.body, p...)
	return len(p), nil
}
