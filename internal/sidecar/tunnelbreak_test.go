package sidecar

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// An abrupt end of one side of a tunnel is no orderly end of the other.
func TestTunnelsThatBreak(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		_, _ = io.WriteString(conn, switched)
		_, err := br.ReadByte()
		if strings.Contains(head, "/node") {
			_ = conn.SetLinger(0) // at worst the end is an orderly one
			return
		}
		ended <- err
	})
	s := proxying(t, n, nil)
	for _, way := range bothWays {
		c := dialBy(t, s, way)
		c.send(upgrade)
		readHead(c.br)
		_ = c.conn.SetLinger(0)
		c.conn.Close()
		select {
		case err := <-ended:
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s: the client's reset came to the node as %v", way, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the client's reset did not come to the node", way)
		}
		c = dialBy(t, s, way)
		c.send(strings.Replace(upgrade, "/foo/", "/foo/node", 1))
		readHead(c.br)
		c.send("x")
		if rest, err := c.rest(); err == nil {
			t.Errorf("%s: the node's reset came to the client as an end behind %q", way, rest)
		}
	}
}
