package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/bench/internal/process"
	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
)

// The bars, on one machine.
const (
	barPublish  = 12_000  // messages stored a second over HTTP
	barAcked    = 12_000  // messages acknowledged a second, end to end
	barFrames   = 150_000 // frames a second to all live subscribers together
	barMedian   = 0.6     // ms from publish to receive at light load
	bar99       = 3       // ms
	prefetch    = 256     // of the durable subscriber
	lightSample = 1000    // messages of the measurement of latency
)

// measurement is one run.
type measurement struct {
	options
	sidecar     *process.Sidecar
	application *application
	engine      *engine.Engine
	direct      *nats.Broker // to the sidecar's engine, without the sidecar
}

func (m *measurement) open(ctx context.Context, data string) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	if m.engine, err = engine.Open(ctx, engine.Options{DataDir: data, Log: quiet}); err != nil {
		return err
	}
	m.direct, err = nats.New(ctx, m.engine.MessagesConn(), nats.Options{Log: quiet})
	return err
}

func (m *measurement) close() error {
	var errs []error
	if m.direct != nil {
		errs = append(errs, m.direct.Close())
	}
	return errors.Join(append(errs, m.engine.Close(context.Background()))...)
}

// repeat calls do from n goroutines until the time is over and returns how
// often a second it was done.
func (m *measurement) repeat(ctx context.Context, n int, begin func() (do func() error, end func(), err error)) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, m.length)
	defer cancel()
	var done atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, n)
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			do, end, err := begin()
			if err != nil {
				errs[i] = err
				return
			}
			defer end()
			for ctx.Err() == nil {
				if errs[i] = do(); errs[i] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

// keep makes a durable queue, so that what is published is stored, and returns
// what empties it.
func (m *measurement) keep(ctx context.Context, topic string) (func() error, error) {
	if err := m.direct.Declare(ctx, topic, "bench", broker.QueueOptions{}); err != nil {
		return nil, err
	}
	return func() error { return m.direct.Delete(ctx, topic, "bench") }, nil
}

// publish measures messages that are stored over HTTP.
func (m *measurement) publish(ctx context.Context) ([]row, error) {
	clear, err := m.keep(ctx, "bench.http")
	if err != nil {
		return nil, err
	}
	rate, err := m.repeat(ctx, m.connections, func() (func() error, func(), error) {
		p, err := m.dial("bench.http")
		if err != nil {
			return nil, nil, err
		}
		return p.publish, func() { _ = p.conn.Close() }, nil
	})
	what := fmt.Sprintf("publish over HTTP, %d connections", m.connections)
	return []row{{what, rate, barPublish, "stored/s", true}}, errors.Join(err, clear())
}

// poster is a connection that publishes, as lean as a load generator's.
type poster struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
}

func (m *measurement) dial(topic string) (*poster, error) {
	conn, err := net.Dial("tcp", m.sidecar.Address)
	if err != nil {
		return nil, err
	}
	body := strings.Repeat("x", m.body)
	request := fmt.Sprintf("POST /broker?topic=%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", topic, m.sidecar.Address, len(body), body)
	return &poster{conn, bufio.NewReader(conn), []byte(request)}, nil
}

func (p *poster) publish() error {
	if _, err := p.conn.Write(p.request); err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := p.in.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("publish: %s", line)
		case len(line) == len("\r\n"): // the answer has no body
			return nil
		}
	}
}

// publishEngine is publish without the sidecar.
func (m *measurement) publishEngine(ctx context.Context) ([]row, error) {
	clear, err := m.keep(ctx, "bench.engine")
	if err != nil {
		return nil, err
	}
	body := bytes.Repeat([]byte("x"), m.body)
	rate, err := m.repeat(ctx, m.connections, func() (func() error, func(), error) {
		return func() error {
			return m.direct.Publish(ctx, "bench.engine", broker.Message{Body: body})
		}, func() {}, nil
	})
	return []row{{"… the engine's own", rate, 0, "stored/s", true}}, errors.Join(err, clear())
}

// fill stores n messages, as many together as the sidecar does.
func (m *measurement) fill(ctx context.Context, topic string, n int) error {
	const together = 64
	all, none := make([]broker.Message, together), make([]string, together)
	for i := range all {
		all[i].Body = bytes.Repeat([]byte("x"), m.body)
	}
	for range n / together {
		if err := errors.Join(m.direct.PublishAll(ctx, topic, none, all)...); err != nil {
			return err
		}
	}
	return nil
}

// endToEnd measures one publisher, who pipelines, and one durable subscriber
// who acknowledges every message, until all have been.
func (m *measurement) endToEnd(ctx context.Context) ([]row, error) {
	const topic = "bench.acks"
	ctx, cancel := context.WithTimeout(ctx, 10*m.length+30*time.Second)
	defer cancel()
	member, err := m.subscribe(fmt.Sprintf("topic=%s&queue=bench&ack=true&prefetch=%d", topic, prefetch))
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = member.conn.Close() })()
	defer func() { _ = member.conn.Close() }()
	var acked, sent atomic.Int64
	failed := make(chan error, 1)
	start := time.Now()
	go func() { failed <- acknowledge(member, &acked) }()
	publishing, stop := context.WithTimeout(ctx, m.length)
	defer stop()
	if err := m.pipeline(publishing, topic, &sent); err != nil {
		return nil, err
	}
	for acked.Load() < sent.Load() {
		select {
		case err := <-failed:
			return nil, err
		case <-time.After(100 * time.Microsecond):
		}
	}
	rate := float64(acked.Load()) / time.Since(start).Seconds()
	return []row{{"one publisher to one durable WebSocket subscriber", rate, barAcked, "acknowledged/s", true}}, m.direct.Delete(ctx, topic, "bench")
}

// pipeline publishes batches of lines over one connection until ctx ends.
func (m *measurement) pipeline(ctx context.Context, topic string, sent *atomic.Int64) error {
	const lines = 500
	line, err := json.Marshal(strings.Repeat("x", m.body-len(`""`)))
	if err != nil {
		return err
	}
	batch := bytes.Repeat(append(line, '\n'), lines)
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, m.sidecar.URL+"/broker?batch=ndjson&topic="+topic, bytes.NewReader(batch))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("publish a batch: %s %s %w", resp.Status, text, err)
		}
		sent.Add(lines)
	}
	return nil
}

// acknowledge acknowledges what comes until the connection is closed.
func acknowledge(s *subscriber, acked *atomic.Int64) error {
	for {
		frame, err := s.next()
		if err != nil {
			return err
		}
		rest, ok := bytes.CutPrefix(frame, []byte(`{"Id":"`)) // it stands first
		id, _, found := bytes.Cut(rest, []byte(`"`))
		if !ok || !found {
			return fmt.Errorf("frame %.100s", frame)
		}
		if err := s.send(fmt.Appendf(nil, `{"Ack":"%s"}`, id)); err != nil {
			return err
		}
		acked.Add(1)
	}
}

// endToEndEngine is a member that acknowledges what is stored, without a
// sidecar or a WebSocket.
func (m *measurement) endToEndEngine(ctx context.Context) ([]row, error) {
	const topic, n = "bench.member", 64 * 1000
	member, err := m.direct.Join(ctx, topic, "bench", broker.JoinOptions{Prefetch: prefetch})
	if err != nil {
		return nil, err
	}
	start := time.Now()
	filled := make(chan error, 1)
	go func() { filled <- m.fill(ctx, topic, n) }()
	for range n {
		h, err := member.Receive(ctx)
		if err != nil {
			return nil, err
		}
		if err := h.Ack(ctx); err != nil {
			return nil, err
		}
	}
	rate := n / time.Since(start).Seconds()
	err = errors.Join(<-filled, member.Close(ctx), m.direct.Delete(ctx, topic, "bench"))
	return []row{{"… the engine's own", rate, 0, "acknowledged/s", true}}, err
}

// fanOut measures frames to many live subscribers. The publishers wait for the
// last of them now and then: who is too slow would be cut.
func (m *measurement) fanOut(ctx context.Context) ([]row, error) {
	many, err := m.fanOutFrom(ctx, 16)
	if err != nil {
		return nil, err
	}
	one, err := m.fanOutFrom(ctx, 1)
	what := fmt.Sprintf("live fan-out to %d WebSocket subscribers", m.subscribers)
	return []row{
		{what + ", 16 publishers", many, barFrames, "frames/s", true},
		{"… 1 publisher, who waits for each answer", one, 0, "frames/s", true},
	}, err
}

func (m *measurement) fanOutFrom(ctx context.Context, publishers int) (float64, error) {
	const topic, window = "bench.fanout", 200
	ctx, cancel := context.WithTimeout(ctx, m.length)
	defer cancel()
	received := make([]atomic.Int64, m.subscribers)
	var readers sync.WaitGroup
	defer readers.Wait()
	for i := range received {
		s, err := m.subscribe("topic=" + topic)
		if err != nil {
			return 0, err
		}
		defer func() { _ = s.conn.Close() }()
		readers.Go(func() {
			for {
				if _, err := s.next(); err != nil {
					return
				}
				received[i].Add(1)
			}
		})
	}
	var sent atomic.Int64
	errs := make([]error, publishers)
	var all sync.WaitGroup
	start := time.Now()
	for i := range errs {
		all.Go(func() { errs[i] = m.flood(ctx, topic, window, &sent, received) })
	}
	all.Wait()
	frames := int64(0)
	for i := range received {
		frames += received[i].Load()
	}
	return float64(frames) / time.Since(start).Seconds(), errors.Join(errs...)
}

// flood publishes until ctx ends, at most window messages ahead of the
// slowest receiver.
func (m *measurement) flood(ctx context.Context, topic string, window int64, sent *atomic.Int64, received []atomic.Int64) error {
	p, err := m.dial(topic)
	if err != nil {
		return err
	}
	defer func() { _ = p.conn.Close() }()
	for ctx.Err() == nil {
		mine, last := sent.Add(1), time.Now()
		for slowest(received) < mine-window && ctx.Err() == nil {
			if time.Since(last) > m.length/2 {
				return errors.New("frames of the fan-out were lost")
			}
			time.Sleep(50 * time.Microsecond)
		}
		if err := p.publish(); err != nil {
			return err
		}
	}
	return nil
}

func slowest(received []atomic.Int64) int64 {
	least := received[0].Load()
	for i := range received {
		least = min(least, received[i].Load())
	}
	return least
}

// latency measures one message at a time, from before the publish to the frame.
func (m *measurement) latency(context.Context) ([]row, error) {
	const topic = "bench.latency"
	s, err := m.subscribe("topic=" + topic)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.conn.Close() }()
	p, err := m.dial(topic)
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.conn.Close() }()
	var took []time.Duration
	for range lightSample {
		start := time.Now()
		answered := make(chan error, 1)
		go func() { answered <- p.publish() }()
		if _, err := s.next(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
		if err := <-answered; err != nil {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
	slices.Sort(took)
	ms := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	return []row{
		{"publish to receive at light load, median", ms(0.5), barMedian, "ms", false},
		{"publish to receive at light load, 99th percentile", ms(0.99), bar99, "ms", false},
	}, nil
}
