package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/socket"
)

const (
	// writeTimeout is how long a watcher may take to accept a change before it
	// is cut.
	writeTimeout = 10 * time.Second
	// heartbeat keeps idle streams open through proxies and finds dead peers.
	heartbeat = 15 * time.Second
	// beginTimeout is how long a watch may take to begin: an engine that is
	// away, or has very much to tell first.
	beginTimeout = 15 * time.Second
)

// watch runs a watch stream until the client goes, the sidecar stops or emit
// fails. live begins the answer, once changes from then on will be seen. An
// error means that nothing was answered.
func (a *API) watch(ctx context.Context, name string, live func() error, emit func([]byte) error) error {
	ctx, done, err := a.Watches.Begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	late := time.AfterFunc(beginTimeout, func() {
		end(&discovery.EngineError{Err: errors.New("it did not answer in time")})
	})
	defer late.Stop()
	begun := false
	err = a.Discovery.Watch(ctx, name, func() {
		if !late.Stop() {
			return
		}
		if err := live(); err != nil {
			end(err)
			return
		}
		begun = true
	}, func(c discovery.Change) error {
		if !begun {
			return context.Cause(ctx)
		}
		frame, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return emit(frame)
	})
	if begun {
		return nil // why it ended is known to whoever ended it
	}
	return cmp.Or(context.Cause(ctx), err)
}

// watchSocket streams changes as text frames. What the client sends has no
// meaning and is dropped.
func (a *API) watchSocket(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var conn *websocket.Conn
	var reading sync.WaitGroup
	live := func() error {
		var err error
		// Origin and host were checked by the guard.
		conn, err = socket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		reading.Go(func() {
			drop(conn)
			cancel()
		})
		go ping(ctx, conn, cancel)
		return nil
	}
	err := a.watch(ctx, r.URL.Query().Get("service"), live, func(frame []byte) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, frame)
	})
	if err != nil {
		Fail(w, r, err)
		return
	}
	_ = conn.Close(websocket.StatusGoingAway, "the sidecar ends the stream")
	reading.Wait()
}

// drop reads until the client ends the connection, or it is closed here; pings
// and the client's farewell are answered meanwhile. The library's CloseRead is
// not used: a message makes it wait for itself, and Close with it, for 15 s.
func drop(conn *websocket.Conn) {
	conn.SetReadLimit(-1) // nothing is kept
	for {
		_, message, err := conn.Reader(context.Background()) // closing ends it
		if err == nil {
			_, err = io.Copy(io.Discard, message)
		}
		if err != nil {
			return
		}
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
	live := func() error {
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
		return nil
	}
	err := a.watch(ctx, r.URL.Query().Get("service"), live, func(frame []byte) error {
		var event bytes.Buffer
		event.WriteString("data: ")
		event.Write(frame)
		event.WriteString("\n\n")
		return send(event.String())
	})
	if err != nil {
		Fail(w, r, err)
		return
	}
	cancel()
	<-beats // nothing may write once the handler has returned
}
