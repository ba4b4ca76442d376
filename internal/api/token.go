package api

import (
	"io"
	"net/http"
	"strings"

	"github.com/micro/sidecar/internal/auth"
	"github.com/micro/sidecar/internal/httpmsg"
)

// What a client must show when the sidecar has tokens, and how it is kept from
// nodes and messages: no field that carries a token goes on, good or not.

const socketProtocol = "Sec-WebSocket-Protocol"

// open are the own paths that ask for no token: probes have none.
func open(path string) bool {
	return path == "/livez" || path == "/readyz" || path == "/health"
}

// errToken is the refusal; it does not tell a wrong token from none.
func errToken() *httpmsg.Error {
	return httpmsg.Errorf(http.StatusUnauthorized, "no or wrong token: expected one in Micro-Token, or on the sidecar's own paths in Authorization: Bearer")
}

// admitOwnToken checks a request to one of the sidecar's own paths, and takes
// the token out of it.
func (a *API) admitOwnToken(w http.ResponseWriter, r *http.Request, path string) bool {
	if a.Tokens == nil {
		return true
	}
	authorization := r.Header.Get("Authorization")
	_, byBearer := a.Tokens.Check(auth.Bearer(authorization))
	_, byBasic := a.Tokens.Check(auth.Basic(authorization))
	if byBearer || byBasic {
		r.Header.Del("Authorization")
	}
	byBasic = byBasic && path == forPeople
	if byBearer || byBasic || open(path) || a.shown(r.Header.Get(auth.Header), r.Header.Get(socketProtocol)) {
		return true
	}
	err := errToken()
	if path == forPeople {
		err.Detail += "; a browser asks for one: it is the password, with any name"
		err.Challenge = `Basic realm="micro"`
	}
	Fail(w, r, err)
	return false
}

// forPeople is the one path where the token may be a password (RFC 7617), for
// which browsers ask by themselves. They go on sending it by themselves, too,
// for other people's pages as well: so it counts where nothing can be changed.
const forPeople = "/stats"

// shown reports whether one of the two ways to show a token on any path was
// used well.
func (a *API) shown(header, protocols string) bool {
	if _, ok := a.Tokens.Check(header); ok {
		return true
	}
	if protocols == "" {
		return false
	}
	_, ok := a.Tokens.Check(auth.Offered(protocols))
	return ok
}

// admitToken is admitOwnToken for the data plane. Of its paths /rpc alone is
// the sidecar's own, where Authorization may hold the token: on the others
// that is the node's. w answers in place of the one given when the client is
// to be told which subprotocol was selected.
func (a *API) admitToken(r *httpmsg.Request, w httpmsg.ResponseWriter) (httpmsg.ResponseWriter, error) {
	protocols := r.Header.Get(socketProtocol)
	if a.Tokens != nil {
		authorization := r.Header.Get("Authorization")
		good := a.shown(r.Header.Get(auth.Header), protocols)
		own := false
		if r.Path() == "/rpc" {
			_, own = a.Tokens.Check(auth.Bearer(authorization))
			good = good || own
		}
		if !own { // a browser sends on every path what it was told on one
			_, own = a.Tokens.Check(auth.Basic(authorization))
		}
		if own {
			r.Header.Del("Authorization")
		}
		if !good {
			return w, errToken()
		}
	}
	if protocols != "" {
		return withhold(r, w, protocols), nil
	}
	return w, nil
}

// withhold takes the token, and the protocol that goes with it, out of a
// handshake. Browsers end a connection when nothing they offered is selected:
// if the node selects nothing, the sidecar's own is.
func withhold(r *httpmsg.Request, w httpmsg.ResponseWriter, protocols string) httpmsg.ResponseWriter {
	if !strings.Contains(protocols, auth.ProtocolToken) {
		return w
	}
	rest := auth.Withhold(protocols)
	if rest == "" {
		r.Header.Del(socketProtocol)
	} else {
		r.Header.Set(socketProtocol, rest)
	}
	if !auth.Offers(protocols) {
		return w
	}
	return &selecting{w}
}

// selecting adds the sidecar's subprotocol to an answer that selects none.
type selecting struct{ httpmsg.ResponseWriter }

func (s *selecting) Upgrade(h httpmsg.Header) (io.ReadWriteCloser, error) {
	if !h.Has(socketProtocol) {
		h = h.Clone()
		h.Add(socketProtocol, auth.Protocol)
	}
	return s.ResponseWriter.Upgrade(h)
}
