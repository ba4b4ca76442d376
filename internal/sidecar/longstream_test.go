package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// No timeout ends a stream whose head is through, and each event has arrived
// before the next is sent.
func TestStreamsOutliveTheTimeout(t *testing.T) {
	t.Parallel()
	const events, pause = 40, 50 * time.Millisecond // twice the timeout
	arrived := make(chan bool)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range events {
			time.Sleep(pause)
			event := fmt.Sprintf("data: %d\n\n", i)
			fmt.Fprintf(conn, "%x\r\n%s\r\n", len(event), event)
			<-arrived
		}
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	})
	s := proxying(t, n, func(c *Config) { c.RequestTimeout = time.Second })
	for _, way := range bothWays {
		c := dialBy(t, s, way)
		c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
		if head := readHead(c.br); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
			t.Fatalf("%s: %q", way, head)
		}
		for i := range events {
			want := fmt.Sprintf("data: %d\n\n", i)
			want = fmt.Sprintf("%x\r\n%s\r\n", len(want), want)
			if got, err := readExactly(c.br, int64(len(want))); err != nil || got != want {
				t.Fatalf("%s: event %d came as %q, %v", way, i, got, err)
			}
			arrived <- true
		}
		if end, err := readExactly(c.br, 5); err != nil || end != "0\r\n\r\n" {
			t.Errorf("%s: the end came as %q, %v", way, end, err)
		}
	}
}

// A client that goes away ends its request at the node within a second, also
// when nothing is sent at that time.
func TestNodesLearnThatTheClientIsGone(t *testing.T) {
	t.Parallel()
	begun, gone := make(chan bool), make(chan time.Time)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		if !strings.Contains(head, "/silent") {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
		}
		begun <- true
		_, _ = io.Copy(io.Discard, br)
		gone <- time.Now()
	})
	s := proxying(t, n, nil)
	for _, way := range bothWays {
		for _, request := range []string{
			"GET /foo/silent HTTP/1.1\r\nHost: h\r\n\r\n", "GET /foo/stream HTTP/1.1\r\nHost: h\r\n\r\n",
			"POST /foo/stream HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
			"POST /foo/silent HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhi",
		} {
			c := dialBy(t, s, way)
			c.send(request)
			<-begun
			if strings.Contains(request, "/stream") {
				readHead(c.br)
			}
			left := time.Now()
			c.conn.Close()
			if took := (<-gone).Sub(left); took > 10*time.Second {
				t.Errorf("%s, %.20q: the node learnt of it after %v", way, request, took)
			}
		}
	}
}

// A stalled side holds the other one back, nothing piles up in between, and
// when it goes on everything arrives.
func TestStalledBodiesPileUpNowhere(t *testing.T) {
	const size = 64 << 20
	var moved atomic.Int64
	goOn := make(chan bool)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for head := readHead(br); head != ""; head = readHead(br) {
			if strings.HasPrefix(head, "GET") {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
				pour(conn, size, &moved)
				continue
			}
			<-goOn
			got, _ := io.Copy(io.Discard, io.LimitReader(br, size))
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n", got)
		}
	})
	s := proxying(t, n, func(c *Config) { c.RequestTimeout = time.Minute })
	for _, way := range bothWays {
		for _, method := range []string{"GET", "POST"} {
			moved.Store(0)
			c := dialBy(t, s, way)
			before := heap()
			var sending sync.WaitGroup
			if method == "GET" {
				c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
			} else {
				c.send(fmt.Sprintf("POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size))
				sending.Go(func() { pour(c.conn, size, &moved) })
			}
			standsStill(t, &moved)
			held, grown := moved.Load(), int64(heap())-int64(before)
			if held > size/2 || grown > 8<<20 {
				t.Errorf("%s, %s: %d MiB were taken for a side that does not read, the heap grew by %d MiB", way, method, held>>20, grown>>20)
			}
			if method == "POST" {
				goOn <- true
			}
			head := readHead(c.br)
			got, err := io.CopyN(io.Discard, c.br, map[string]int64{"GET": size}[method])
			if method == "POST" && field(head, "X-Got") != fmt.Sprint(size) || err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
				t.Errorf("%s, %s: %q and %d bytes, %v", way, method, head, got, err)
			}
			sending.Wait()
			c.conn.Close()
		}
	}
}

// pour writes n zeros and counts them.
func pour(conn net.Conn, n int64, moved *atomic.Int64) {
	piece := make([]byte, 64<<10)
	for left := n; left > 0; {
		k, err := conn.Write(piece[:min(left, int64(len(piece)))])
		moved.Add(int64(k))
		if left -= int64(k); err != nil {
			return // the other side finds too little
		}
	}
}

// heap is what is in use behind a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
