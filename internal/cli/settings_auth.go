package cli

import (
	"crypto/tls"
	"fmt"
	"net/http"

	"github.com/micro/sidecar/internal/auth"
	"github.com/micro/sidecar/internal/certs"
)

// credentials are what a command shows the sidecar it goes through, and how it
// knows that sidecar.
type credentials struct {
	tokenFile string // "name:token" or a token alone
	caFile    string // PEM; "" means the system's authorities
	certFile  string // PEM
	keyFile   string // PEM
}

func authSettings() []*setting {
	return []*setting{
		{
			name: "auth_token_file", group: groupSidecar, value: "FILE", help: "lines name:token; every request must show one of the tokens",
			set: one(parseName, func(c *Config) *string { return &c.authTokenFile }),
		},
		{
			name: "token_file", group: groupThrough, value: "FILE", help: "the token to show that sidecar; or $MICRO_TOKEN",
			set: one(parseName, func(c *Config) *string { return &c.credentials.tokenFile }),
		},
		{
			name: "ca_file", group: groupThrough, value: "FILE", note: "the system's", help: "authorities that may have signed its certificate, as PEM",
			set: one(parseName, func(c *Config) *string { return &c.credentials.caFile }),
		},
		{
			name: "client_cert_file", group: groupThrough, value: "FILE", help: "a certificate to show it, as PEM",
			set: one(parseName, func(c *Config) *string { return &c.credentials.certFile }),
		},
		{
			name: "client_key_file", group: groupThrough, value: "FILE", help: "the key of that certificate, as PEM",
			set: one(parseName, func(c *Config) *string { return &c.credentials.keyFile }),
		},
	}
}

// finishAuth reads the tokens that clients must show.
func (c *Config) finishAuth(given map[string]origin) error {
	if c.authTokenFile == "" {
		return nil
	}
	tokens, err := auth.Open(c.authTokenFile)
	if err != nil {
		return fmt.Errorf("%s: %w", given["auth_token_file"], err)
	}
	c.Sidecar.Tokens = tokens
	return nil
}

// showing is what a command shows the sidecar it goes through.
type showing struct {
	token string
	tls   *tls.Config // nil: what the system says
}

// showing reads what the settings name. A command that goes through no sidecar
// shows nothing.
func (c *Config) showing(given map[string]origin, env environment) (s showing, err error) {
	if c.ProxyAddress == nil {
		return showing{}, nil
	}
	k := &c.credentials
	s.token = env.get("MICRO_TOKEN")
	if k.tokenFile != "" {
		if s.token, err = auth.First(k.tokenFile); err != nil {
			return showing{}, fmt.Errorf("%s: %w", given["token_file"], err)
		}
	}
	s.tls, err = k.tlsConfig(given)
	return s, err
}

// tlsConfig reads the files of TLS, nil when there are none.
func (k *credentials) tlsConfig(given map[string]origin) (*tls.Config, error) {
	switch {
	case k.caFile == "" && k.certFile == "" && k.keyFile == "":
		return nil, nil
	case k.certFile != "" && k.keyFile == "":
		return nil, fmt.Errorf("%s needs --client_key_file", given["client_cert_file"])
	case k.certFile == "" && k.keyFile != "":
		return nil, fmt.Errorf("%s needs --client_cert_file", given["client_key_file"])
	}
	config := &tls.Config{}
	var err error
	if k.caFile != "" {
		if config.RootCAs, err = certs.ReadPool(k.caFile); err != nil {
			return nil, fmt.Errorf("%s: %w", given["ca_file"], err)
		}
	}
	if k.certFile != "" {
		pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", given["client_cert_file"], given["client_key_file"], err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// on makes a transport that shows the token with every request.
func (s showing) on(t http.RoundTripper) http.RoundTripper {
	if s.token == "" {
		return t
	}
	return &withToken{t, s.token}
}

type withToken struct {
	http.RoundTripper
	token string
}

// RoundTrip sends a copy of the request that has the token.
func (t *withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(auth.Header, t.token)
	return t.RoundTripper.RoundTrip(r) //nolint:wrapcheck // it is the transport's own
}

// CloseIdleConnections is for http.Client, which looks for it.
func (t *withToken) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
