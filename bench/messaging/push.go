package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/broker"
)

const (
	pushTopic    = "bench.push"
	orderedTopic = "bench.ordered"
	pushWorkers  = 64   // requests to the application at a time
	orderedKeys  = 1000 // of the ordered queue
)

// application counts what is posted to it.
type application struct {
	server *http.Server
	url    string
	got    atomic.Int64
}

func startApplication() (*application, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &application{url: "http://" + l.Addr().String() + "/"}
	a.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a body that breaks off comes again
		a.got.Add(1)
	})}
	go func() { _ = a.server.Serve(l) }()
	return a, nil
}

// subscriptions are the sidecar's flags.
func (a *application) subscriptions() []string {
	return []string{
		fmt.Sprintf("--subscribe=topic=%s,queue=bench,url=%s,concurrency=%d", pushTopic, a.url, pushWorkers),
		fmt.Sprintf("--subscribe=topic=%s,queue=bench,url=%s,concurrency=%d,ordered=true", orderedTopic, a.url, pushWorkers),
	}
}

// push measures messages that are posted to an application and acknowledged.
func (m *measurement) push(ctx context.Context) ([]row, error) {
	rate, err := m.drain(ctx, pushTopic, func(int) string { return "" })
	return []row{{fmt.Sprintf("pushed to an application, %d at a time", pushWorkers), rate, 0, "acknowledged/s", true}}, err
}

// pushOrdered is push with order for each key.
func (m *measurement) pushOrdered(ctx context.Context) ([]row, error) {
	rate, err := m.drain(ctx, orderedTopic, func(i int) string { return strconv.Itoa(i % orderedKeys) })
	return []row{{fmt.Sprintf("… in order for each of %d keys", orderedKeys), rate, 0, "acknowledged/s", true}}, err
}

// drain publishes for the measurement's length, and counts until the queue is
// empty, which says that all has been acknowledged. The publisher stays a
// little ahead: enough for no worker to wait, and no more to store than that.
func (m *measurement) drain(ctx context.Context, topic string, key func(int) string) (float64, error) {
	const together, ahead = 64, 4096
	ctx, cancel := context.WithTimeout(ctx, 10*m.length+30*time.Second)
	defer cancel()
	all, none := make([]broker.Message, together), make([]string, together)
	before, start, sent := m.application.got.Load(), time.Now(), 0
	for time.Since(start) < m.length {
		for i := range all {
			all[i] = broker.Message{Header: map[string]string{"Micro-Key": key(sent + i)}, Body: []byte(strings.Repeat("x", m.body))}
		}
		if err := errors.Join(m.direct.PublishAll(ctx, topic, none, all)...); err != nil {
			return 0, err
		}
		sent += together
		for int64(sent)-(m.application.got.Load()-before) > ahead && ctx.Err() == nil {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for {
		queues, err := m.direct.Queues(ctx)
		if err != nil {
			return 0, err
		}
		if !slices.ContainsFunc(queues, func(q broker.QueueInfo) bool { return q.Topic == topic && q.Lag+q.Held > 0 }) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return float64(sent) / time.Since(start).Seconds(), nil
}

// publishBatches measures messages that are stored by one connection that
// posts 500 lines at a time.
func (m *measurement) publishBatches(ctx context.Context) ([]row, error) {
	clear, err := m.keep(ctx, "bench.batch")
	if err != nil {
		return nil, err
	}
	publishing, stop := context.WithTimeout(ctx, m.length)
	defer stop()
	var sent atomic.Int64
	start := time.Now()
	err = m.pipeline(publishing, "bench.batch", &sent)
	rate := float64(sent.Load()) / time.Since(start).Seconds()
	return []row{{"publish batches of lines over one connection", rate, 0, "stored/s", true}}, errors.Join(err, clear())
}
