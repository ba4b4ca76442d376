package engine

import (
	"crypto/rand"
	"crypto/subtle"

	"github.com/nats-io/nats-server/v2/server"
)

// The accounts keep registrations and messages apart: no subject of one can
// be reached from the other. Their names are folders of the store.
const (
	registryAccount = "REGISTRY"
	messagesAccount = "MESSAGES"
)

// authenticator lets in whoever knows the token: the account's name is the
// user, the token the password. It takes the place of the server's own table
// of users, which warns about passwords that are not hashed; this one is
// random, new with every start and never stored by the server.
type authenticator struct {
	token []byte
	// lookup finds the server's account of a name.
	lookup func(name string) (*server.Account, error)
}

// Check implements [server.Authentication].
func (a *authenticator) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	if opts.Username != registryAccount && opts.Username != messagesAccount {
		return false
	}
	if subtle.ConstantTimeCompare([]byte(opts.Password), a.token) != 1 {
		return false
	}
	account, err := a.lookup(opts.Username)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{Username: opts.Username, Account: account})
	return true
}

// newToken returns 128 random bits or more, as text.
func newToken() string { return rand.Text() }
