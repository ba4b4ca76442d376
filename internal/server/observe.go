package server

import (
	"net/http"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Answered is a request that was answered, for an access log. It is valid
// during the call.
type Answered struct {
	Begun time.Time
	Took  time.Duration // to the end of the answer, or of the upgraded connection
	// Method, Target, Host and Header are as they came.
	Method, Target, Host string
	Header               func(name string) string
	RemoteAddr, Proto    string
	Status               int   // 0: there was no answer
	Sent                 int64 // bytes of the answer's body; of an upgraded connection 0
	httpmsg.Account
}

// observation is an Answered in the making, one a connection.
type observation struct {
	begun   time.Time
	account httpmsg.Account
}

// begin starts the clock and returns the account that handlers fill in.
func (o *observation) begin() *httpmsg.Account {
	o.begun, o.account = time.Now(), httpmsg.Account{}
	return &o.account
}

// tell tells about a request of the fast path, if anybody wants to know.
func (c *fastConn) tell() {
	if c.f.entrance.observe == nil {
		return
	}
	h := &c.head
	proto := "HTTP/1.1"
	if h.Minor == 0 {
		proto = "HTTP/1.0"
	}
	c.f.entrance.observe(&Answered{
		Begun: c.observed.begun, Took: time.Since(c.observed.begun),
		Method: h.Method, Target: h.Target, Host: h.Host, Header: h.Header.Get,
		RemoteAddr: c.remote, Proto: proto, Status: c.out.status, Sent: c.out.sent, Account: c.observed.account,
	})
}

// observe tells about a request of net/http's.
func (r *recorder) observe(req *http.Request) {
	r.entrance.observe(&Answered{
		Begun: r.observed.begun, Took: time.Since(r.observed.begun),
		Method: req.Method, Target: r.target(req), Host: req.Host, Header: req.Header.Get,
		RemoteAddr: req.RemoteAddr, Proto: req.Proto, Status: r.status, Sent: r.sent, Account: r.observed.account,
	})
}
