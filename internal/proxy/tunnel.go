package proxy

import (
	"context"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/tunnel"
)

// upgrade passes a 101 on and joins the client's and the node's connection.
func upgrade(ctx context.Context, resp *httpmsg.Response, w httpmsg.ResponseWriter) error {
	node := resp.Conn
	protocol := resp.Header.Get("Upgrade") // answered uses its memory
	header := answered(resp.Header)
	header.Add("Connection", "Upgrade")
	header.Add("Upgrade", protocol)
	client, err := w.Upgrade(header)
	if err != nil {
		_ = node.Close() // nobody is left to talk to it
		return httpmsg.ErrAborted
	}
	tunnel.Join(ctx, client, node)
	return nil
}
