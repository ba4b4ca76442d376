package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/discovery"
)

const (
	// writeTimeout is how long a watcher may take to accept a change before it
	// is cut.
	writeTimeout = 10 * time.Second
	// heartbeat keeps idle streams open through proxies and finds dead peers.
	heartbeat = 15 * time.Second
)

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// stopped is closed when the streams have to end.
func (a *API) stopped() chan struct{} {
	a.init.Do(func() { a.stop = make(chan struct{}) })
	return a.stop
}

// watch runs a watch stream until the client goes, the sidecar stops or emit
// fails.
func (a *API) watch(ctx context.Context, name string, live func(), emit func([]byte) error) {
	a.watchers.Add(1)
	defer a.watchers.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-a.stopped():
			cancel()
		}
	}()
	_ = a.Discovery.Watch(ctx, name, live, func(c discovery.Change) error {
		frame, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return emit(frame)
	}) // why it ended is known to whoever ended it
}

// watchSocket streams changes as text frames. The 101 is sent once changes
// from then on will be seen.
func (a *API) watchSocket(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var conn *websocket.Conn
	live := func() {
		var err error
		// Origin and host were checked by the guard.
		conn, err = websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil { // Accept has answered
			cancel()
			return
		}
		closed := conn.CloseRead(ctx)
		context.AfterFunc(closed, cancel)
		go ping(ctx, conn, cancel)
	}
	a.watch(ctx, r.URL.Query().Get("service"), live, func(frame []byte) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, frame)
	})
	if conn != nil {
		_ = conn.Close(websocket.StatusGoingAway, "the sidecar ends the stream")
	}
}

// ping ends a socket whose peer no longer answers.
func ping(ctx context.Context, conn *websocket.Conn, cancel func()) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pingCtx, done := context.WithTimeout(ctx, writeTimeout)
		err := conn.Ping(pingCtx)
		done()
		if err != nil {
			cancel()
			return
		}
	}
}

// watchEvents streams changes as server-sent events (HTML standard, section
// 9.2).
func (a *API) watchEvents(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var mu sync.Mutex // changes and heartbeats come from different goroutines
	control := http.NewResponseController(w)
	send := func(event string) error {
		mu.Lock()
		defer mu.Unlock()
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // where it is supported
		if _, err := w.Write([]byte(event)); err != nil {
			return err
		}
		return control.Flush()
	}
	beats := make(chan struct{})
	live := func() {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-cache")
		if send(": watching\n\n") != nil {
			cancel()
		}
		go func() {
			defer close(beats)
			tick := time.NewTicker(heartbeat)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					if send(": \n\n") != nil {
						cancel()
					}
				}
			}
		}()
	}
	begun := false
	a.watch(ctx, r.URL.Query().Get("service"), func() { begun = true; live() }, func(frame []byte) error {
		var event bytes.Buffer
		event.WriteString("data: ")
		event.Write(frame)
		event.WriteString("\n\n")
		return send(event.String())
	})
	cancel()
	if begun {
		<-beats // nothing may write once the handler has returned
	}
}
