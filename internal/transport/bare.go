package transport

import (
	"github.com/micro/sidecar/internal/httpmsg"
)

// bare is the form of go-micro's first years, and of any JSON-RPC server:
// argument and result travel in an envelope that names the method.
type bare struct{}

func (bare) request(h *httpmsg.Header, media string, c Call) ([]byte, error) {
	h.Add("X-Micro-From-Service", "go.micro.sidecar")
	if media == Protobuf {
		return protorpcRequest(c.Method, c.Body), nil
	}
	return jsonrpcRequest(c.Method, c.Body)
}

func (bare) result(media string, h httpmsg.Header, body []byte) ([]byte, error) {
	if err := checkType(media, h, body); err != nil {
		if e := headerError(h); e != nil {
			return nil, e
		}
		return nil, err
	}
	if media == Protobuf {
		return protorpcResult(body)
	}
	return jsonrpcResult(body)
}
