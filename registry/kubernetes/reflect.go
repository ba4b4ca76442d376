package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/micro/sidecar/internal/sleep"
)

const (
	pageSize = 500
	maxPage  = 64 << 20 // bytes
	maxEvent = 16 << 20 // bytes; etcd, behind the API, takes 1.5 MiB
	// listTimeout bounds a page. A watch is ended by the server after a time
	// between watchTime and twice that, which is asked for, and begun again.
	listTimeout = 30 * time.Second
	watchTime   = 4 * time.Minute
	// Pauses after failures double from the first to the last.
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
)

// errAtOnce keeps a server that ends watches as they begin from being asked
// without a pause.
var errAtOnce = errors.New("the watch was ended at once")

// errExpired says that the API no longer has the past that was asked for.
var errExpired = errors.New("the resource version is too old")

// object is a *service or an *endpointSlice.
type object interface {
	meta() *objectMeta
}

// kind is one of the API's lists, and where its objects go.
type kind[T object] struct {
	client  *client
	path    string
	log     *slog.Logger
	replace func(all []T)
	set     func(o T, gone bool)
	state   func(err error) // nil when it is watched
}

// run lists, and then watches from there, until ctx ends: the API's concepts
// page, "Efficient detection of changes".
func (k kind[T]) run(ctx context.Context) {
	pause, failing := firstPause, false
	version := ""
	for {
		begun := time.Now()
		err := k.follow(ctx, &version, func() {
			if failing {
				k.log.Info("Kubernetes is watched again", "path", k.path)
			}
			pause, failing = firstPause, false
			k.state(nil)
		})
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errExpired) {
			version = "" // list anew
		}
		if err == nil && time.Since(begun) > firstPause { // the watch's time was over
			continue
		}
		if err == nil {
			err = errAtOnce
		}
		k.state(err)
		if !failing && !errors.Is(err, errExpired) {
			k.log.Warn("Kubernetes cannot be watched; what is known stays in use", "path", k.path, "error", err)
			failing = true
		}
		if sleep.For(ctx, pause/2+rand.N(pause/2)) != nil {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// follow lists if there is no version, and watches from the version on.
func (k kind[T]) follow(ctx context.Context, version *string, live func()) error {
	if *version == "" {
		all, at, err := k.list(ctx)
		if err != nil {
			return err
		}
		k.replace(all)
		*version = at
	}
	return k.watch(ctx, version, live)
}

// list reads all objects, a page after the other.
func (k kind[T]) list(ctx context.Context) (all []T, version string, err error) {
	next := ""
	for {
		q := url.Values{"limit": {strconv.Itoa(pageSize)}}
		if next != "" {
			q.Set("continue", next)
		}
		var page list[T]
		if err := k.page(ctx, q, &page); err != nil {
			return nil, "", err
		}
		all = append(all, page.Items...)
		if next = page.Metadata.Continue; next == "" {
			return all, page.Metadata.ResourceVersion, nil
		}
	}
}

func (k kind[T]) page(ctx context.Context, q url.Values, page *list[T]) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	body, err := k.client.get(ctx, k.path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxPage)).Decode(page); err != nil {
		return fmt.Errorf("list %s: %w", k.path, err)
	}
	return nil
}

// watch takes changes in until the server ends the stream, which is no error.
func (k kind[T]) watch(ctx context.Context, version *string, live func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	most := watchTime + rand.N(watchTime)
	// A server that forgets to end it is not waited for.
	defer time.AfterFunc(most+listTimeout, cancel).Stop()
	body, err := k.client.get(ctx, k.path, url.Values{
		"watch": {"1"}, "resourceVersion": {*version}, "allowWatchBookmarks": {"true"},
		"timeoutSeconds": {strconv.Itoa(int(most / time.Second))},
	})
	if err != nil {
		return err
	}
	defer body.Close()
	live()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		at, err := k.take(lines.Bytes())
		if err != nil {
			return fmt.Errorf("watch %s: %w", k.path, err)
		}
		if at != "" {
			*version = at
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("watch %s: %w", k.path, err)
	}
	return nil
}

// take takes one event in, and returns the version that it brings.
func (k kind[T]) take(line []byte) (version string, err error) {
	var event struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return "", err
	}
	if event.Type == "ERROR" {
		var s status
		if err := json.Unmarshal(event.Object, &s); err != nil {
			return "", err
		}
		return "", s.err()
	}
	var o T
	if err := json.Unmarshal(event.Object, &o); err != nil {
		return "", err
	}
	if any(o) == any(*new(T)) {
		return "", errors.New("an event without an object")
	}
	switch event.Type {
	case "ADDED", "MODIFIED":
		k.set(o, false)
	case "DELETED":
		k.set(o, true)
	case "BOOKMARK": // its version is all there is
	default:
		return "", fmt.Errorf("an event of type %.40q", event.Type)
	}
	return o.meta().ResourceVersion, nil
}

func (s status) err() error {
	err := fmt.Errorf("%.300s (%d %.60s)", s.Message, s.Code, s.Reason)
	if s.Code == http.StatusGone {
		return fmt.Errorf("%w: %w", errExpired, err)
	}
	return err
}
