package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// kind is a kind of connection: a request, the status it is answered with, and
// what is exchanged before nothing is.
type kind struct {
	name    string
	request string
	status  int
	then    func(conn net.Conn, br *bufio.Reader, resp *http.Response) error
}

const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

var kinds = []kind{
	{"WebSocket through the proxy", "GET /node/socket HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "\r\n", 101, echo},
	{"server-sent events through the proxy", "GET /node/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", 200, event},
	{"subscriber of GET /broker", "GET /broker?topic=idle HTTP/1.1\r\nHost: localhost\r\n" + upgrade + "\r\n", 101, nil},
	{"kept alive between requests", "GET /node/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, whole},
}

// messageSize is the size in bytes of what is exchanged on a connection before
// it is idle: larger than any buffer on the way.
const messageSize = 64 << 10

// echo sends a binary message, and reads it back from the node. The mask is
// zero, as one in 2^32 clients' is.
func echo(conn net.Conn, br *bufio.Reader, _ *http.Response) error {
	header := []byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint64(header[2:], messageSize)
	message := bytes.Repeat([]byte("x"), messageSize)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(append(header, message...))
		sent <- err
	}()
	got, err := readFrame(br)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, message) {
		return fmt.Errorf("of a message of %d bytes, %d came back", messageSize, len(got))
	}
	return nil
}

// readFrame reads an unmasked frame (RFC 6455 section 5.2).
func readFrame(br *bufio.Reader) ([]byte, error) {
	var header [2]byte
	if _, err := io.ReadFull(br, header[:]); err != nil {
		return nil, err
	}
	size := uint64(header[1])
	if more := map[uint64]int{126: 2, 127: 8}[size]; more > 0 {
		var length [8]byte
		if _, err := io.ReadFull(br, length[8-more:]); err != nil {
			return nil, err
		}
		size = binary.BigEndian.Uint64(length[:])
	}
	if size > 1<<20 {
		return nil, fmt.Errorf("a frame of %d bytes", size)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(br, b)
	return b, err
}

// event reads the first event.
func event(_ net.Conn, _ *bufio.Reader, resp *http.Response) error {
	want := firstEvent()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		return err
	}
	if string(got) != want {
		return errors.New("the first event is another one")
	}
	return nil
}

// whole reads the whole answer.
func whole(_ net.Conn, _ *bufio.Reader, resp *http.Response) error {
	_, err := io.Copy(io.Discard, resp.Body)
	return err
}

const (
	atOnce    = 32               // connections being opened
	openLimit = 30 * time.Second // for one to be answered
)

// openMany opens connections; those that it opened before an error are
// returned with it.
func openMany(ctx context.Context, address string, k kind, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range conns {
		g.Go(func() (err error) {
			if err = ctx.Err(); err == nil {
				conns[i], err = open(ctx, address, k)
			}
			return err
		})
	}
	err := g.Wait()
	open := conns[:0]
	for _, c := range conns {
		if c != nil {
			open = append(open, c)
		}
	}
	return open, err
}

// open opens one connection and has the first exchange on it.
func open(ctx context.Context, address string, k kind) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := k.begin(conn); err != nil {
		_ = conn.Close() // it is of no use
		return nil, err
	}
	return conn, nil
}

// begin sends the request and has the first exchange.
func (k kind) begin(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(openLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, k.request); err != nil {
		return err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != k.status {
		return fmt.Errorf("answered %s", resp.Status)
	}
	if k.then == nil {
		return nil
	}
	return k.then(conn, br, resp)
}
