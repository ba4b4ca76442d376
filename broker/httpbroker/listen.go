package httpbroker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
)

const (
	// maxIncoming is how many deliveries are read and parsed at a time; more
	// wait. It bounds their memory.
	maxIncoming = 32
	// readTimeout bounds the arrival of one delivery.
	readTimeout = 30 * time.Second
)

// listener takes deliveries.
type listener struct {
	host   string // what is registered
	port   int
	server *http.Server
}

// listen starts the listener unless it runs; b.mu is held.
func (b *Broker) listen() error {
	if b.listener != nil {
		return nil
	}
	socket, err := net.Listen("tcp", b.o.Listen)
	if err != nil {
		return fmt.Errorf("listen for deliveries: %w", err)
	}
	l := &listener{port: socket.Addr().(*net.TCPAddr).Port} //nolint:forcetypeassert // of a "tcp" listener
	if l.host, err = advertised(b.o, socket.Addr()); err != nil {
		_ = socket.Close()
		return err
	}
	l.server = &http.Server{
		Handler:           &inbox{broker: b, turn: make(chan struct{}, maxIncoming)},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       readTimeout,
		IdleTimeout:       2 * time.Minute, // longer than our own client keeps a connection
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
	b.listener = l
	b.tasks.Go(func() {
		if err := l.server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			b.log.Error("http broker: the listener for deliveries broke", "error", err)
		}
	})
	b.tasks.Go(func() { b.roster.run(b.ctx) })
	b.log.Info("http broker: listening for deliveries", "address", socket.Addr().String(),
		"registered", net.JoinHostPort(l.host, strconv.Itoa(l.port)))
	return nil
}

// close lets the deliveries being read finish, for a moment.
func (l *listener) close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close()
	}
}

// advertised is the host under which others reach the listener.
func advertised(o Options, bound net.Addr) (string, error) {
	if o.Advertise != "" {
		return strings.Trim(o.Advertise, "[]"), nil
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return "", fmt.Errorf("listen address: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	if host != "" && (err != nil || !ip.IsUnspecified()) {
		return host, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find an address to register for %s: %w", bound, err)
	}
	return reachable(addrs), nil
}

// reachable picks the address of this machine that others most likely reach:
// IPv4 before IPv6, loopback when there is no other.
func reachable(addrs []net.Addr) string {
	v6 := ""
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		if prefix.Addr().Is4() {
			return prefix.Addr().String()
		}
		if v6 == "" {
			v6 = prefix.Addr().String()
		}
	}
	if v6 != "" {
		return v6
	}
	return "127.0.0.1"
}

// inbox answers deliveries.
type inbox struct {
	broker *Broker
	turn   chan struct{} // holds a token for each delivery that is being read
}

func (in *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, err := in.take(w, r)
	if err == nil {
		return // 200, no body
	}
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	http.Error(w, err.Error(), status)
}

// take reads one delivery and gives it to the subscription it is for.
func (in *inbox) take(w http.ResponseWriter, r *http.Request) (status int, err error) {
	topicHeader, ok := topicHeader(r.URL.Path)
	if !ok {
		return http.StatusNotFound, fmt.Errorf("%s is not where messages are delivered", r.URL.Path)
	}
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, fmt.Errorf("a message is delivered by POST, not %s", r.Method)
	}
	s := in.broker.find(r.URL.Query().Get("id"))
	if s == nil {
		return http.StatusNotFound, errors.New("there is no subscription with this id")
	}
	select {
	case in.turn <- struct{}{}:
		defer func() { <-in.turn }()
	case <-r.Context().Done():
		return http.StatusServiceUnavailable, r.Context().Err()
	}
	limit := in.broker.o.MaxMessageSize
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload(limit)))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the delivery is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("read the delivery: %w", err)
	}
	topic, m, err := decode(payload, topicHeader)
	switch {
	case err != nil:
		return http.StatusBadRequest, err
	case int64(len(m.Body)) > limit:
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", limit)
	case topic != s.topic:
		return http.StatusBadRequest, errors.New("the subscription with this id is to another topic")
	case !s.box.Put(broker.Delivery{Topic: topic, Message: m}):
		return http.StatusServiceUnavailable, errors.New("the subscriber does not keep up")
	}
	return http.StatusOK, nil
}

// find returns the subscription that is registered with the node id.
func (b *Broker) find(id string) *subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byID[id]
}

// topicHeader is the key that carries the topic in what is posted to the path.
func topicHeader(path string) (key string, ok bool) {
	for _, g := range generations() {
		if g.path == path {
			return g.header, true
		}
	}
	return "", false
}
