package transport

import (
	"errors"
	"io"
)

// noBody is an empty body.
type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }

// answerBody is the body of the exchange's answer; its errors name the node. The
// exchange is another one's after Close.
type answerBody struct{ *exchange }

// Read reads a piece of the body as it comes.
func (b *answerBody) Read(p []byte) (int, error) {
	if b.exchange == nil {
		return 0, errBodyClosed
	}
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed(b.ctx, b.conn.pool.peer.Addr, true, err)
	}
	return n, err
}

// Here reports whether a read returns at once.
func (b *answerBody) Here() bool { return b.exchange != nil && b.body.Ready() }

// Wait is [http1.Body.Wait].
func (b *answerBody) Wait() {
	if b.exchange != nil {
		b.body.Wait()
	}
}

// Close ends the exchange. The connection is kept when both messages are
// complete and nothing is left on it.
func (b *answerBody) Close() error {
	x := b.exchange
	if x == nil {
		return nil
	}
	b.exchange = nil
	free := x.release()
	c := x.conn
	if free && x.body.Ended() && !x.answer.Close && x.sender.finished() && len(c.in.Buffered()) == 0 {
		x.ctx, x.request, x.forward = nil, nil, nil
		c.used = true
		c.pool.put(c)
		return nil
	}
	return c.Close()
}
