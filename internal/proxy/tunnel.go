package proxy

import (
	"context"
	"io"

	"github.com/micro/sidecar/internal/httpmsg"
)

// tunnel joins the client's and the node's connection after a 101. What one
// side closes for writing is closed for writing on the other; when one side
// breaks, or ctx ends, both are closed.
func tunnel(ctx context.Context, resp *httpmsg.Response, w httpmsg.ResponseWriter) error {
	node := resp.Conn
	defer node.Close()
	header := answered(resp.Header)
	header.Add("Connection", "Upgrade")
	header.Add("Upgrade", resp.Header.Get("Upgrade"))
	client, err := w.Upgrade(header)
	if err != nil {
		return httpmsg.ErrAborted
	}
	defer client.Close()
	defer context.AfterFunc(ctx, func() {
		node.Close()
		client.Close()
	})()

	done := make(chan error, 2)
	go func() { done <- pipe(node, client) }()
	go func() { done <- pipe(client, node) }()
	for range 2 {
		if err := <-done; err != nil { // one side broke: the other ends as well
			node.Close()
			client.Close()
		}
	}
	return nil
}

// closeWriter is a connection that can be closed for writing alone.
type closeWriter interface{ CloseWrite() error }

// pipe copies src to dst until src ends, and passes the end on. A destination
// that cannot be half-closed is closed.
func pipe(dst io.WriteCloser, src io.Reader) error {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	if _, err := io.CopyBuffer(onlyWriter{dst}, onlyReader{src}, buf[:]); err != nil {
		return err
	}
	if c, ok := dst.(closeWriter); ok {
		return c.CloseWrite()
	}
	return dst.Close()
}

// onlyWriter and onlyReader hide ReadFrom and WriteTo, so that our buffer is
// used and not a new one.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
