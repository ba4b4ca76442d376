//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// cluster is an engine of several nodes, of which one at a time is killed.
type cluster struct {
	nodes []engineNode
	most  time.Duration // how long all nodes stay up at most; 0 is a second
	whole func() bool   // every node has again all that it keeps; nil does not ask

	down  sync.WaitGroup // a node is away
	busy  atomic.Bool
	kills int
	next  time.Time
}

// engineNode is a server that can be killed and started again with its data.
type engineNode interface {
	Stop()
	Launch() error
}

// strike kills a node, if all are up and have been for a while, and has it
// back a little later.
func (c *cluster) strike(t *testing.T) {
	t.Helper()
	if time.Now().Before(c.next) || !c.busy.CompareAndSwap(false, true) {
		return
	}
	if c.whole != nil && !c.whole() {
		c.busy.Store(false)
		return
	}
	node := c.nodes[rand.IntN(len(c.nodes))]
	node.Stop()
	c.kills++
	c.down.Go(func() {
		defer c.busy.Store(false)
		<-time.After(time.Duration(rand.IntN(3000)) * time.Millisecond)
		if err := node.Launch(); err != nil {
			t.Error(err)
		}
	})
	c.next = time.Now().Add(time.Second + time.Duration(rand.Int64N(int64(c.most+time.Second))))
}

// settle returns when all nodes are up.
func (c *cluster) settle(t *testing.T) {
	t.Helper()
	c.down.Wait()
}

// spared tells that no node was killed yet; a nil cluster has none.
func (c *cluster) spared() bool { return c != nil && c.kills == 0 }

// count is how many nodes were killed; a nil cluster has none.
func (c *cluster) count() int {
	if c == nil {
		return 0
	}
	return c.kills
}

// puller takes messages of the queue pull over WebSockets, which break at
// random, on either sidecar.
type puller struct {
	addresses []atomic.Pointer[string]
	ledger    *ledger
	reliable  bool // it neither breaks nor refuses
	cuts      atomic.Int32
}

func (p *puller) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.pull(ctx, *p.addresses[rand.IntN(len(p.addresses))].Load())
		select {
		case <-time.After(time.Duration(rand.IntN(50)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// pull returns when the connection has ended.
func (p *puller) pull(ctx context.Context, address string) {
	dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(dialing, "ws://"+address+"/broker?topic=orders&queue=pull&ack=true&ack_wait=2s", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return
	}
	defer conn.CloseNow() // this is the cut
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var frame struct {
			ID    string `json:"Id"`
			Body  []byte
			Error string
		}
		if json.Unmarshal(text, &frame) != nil || frame.Error != "" {
			continue // an error frame: the message comes again
		}
		answer := map[string]string{"Ack": frame.ID}
		switch chance := rand.IntN(300); {
		case chance == 0 && !p.reliable:
			p.cuts.Add(1)
			p.ledger.strike()
			return
		case chance < 3 && !p.reliable:
			answer = map[string]string{"Nack": frame.ID, "Delay": "50ms"}
		default:
			p.ledger.arrive("pull", strings.Trim(string(frame.Body), `"`))
		}
		said, err := json.Marshal(answer)
		if err != nil || conn.Write(ctx, websocket.MessageText, said) != nil {
			return
		}
	}
}
