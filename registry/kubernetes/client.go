package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// client asks an API server.
type client struct {
	config
	http *http.Client
}

func newClient(c config) *client {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.tls, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: listTimeout, IdleConnTimeout: time.Minute,
		// A connection that died without a word is noticed: a watch is silent
		// for minutes.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}
	return &client{config: c, http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the token is for this server
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// get asks for a path under the server's address.
func (c *client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "micro-sidecar")
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	s := status{Message: "it did not say why"}
	if body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10)); err == nil {
		_ = json.Unmarshal(body, &s) // what is no Status has no message
	}
	s.Code = response.StatusCode
	return nil, fmt.Errorf("GET %s: %w", path, s.err())
}

// token is read each time: the kubelet replaces a pod's every hour.
func (c *config) token() (string, error) {
	if c.tokenFile == "" {
		return c.bearer, nil
	}
	text, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return "", err
	}
	if text = bytes.TrimSpace(text); len(text) == 0 || bytes.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("%s: expected a token, got none", c.tokenFile)
	}
	return string(text), nil
}

// config is where the API is, and who asks.
type config struct {
	server    string // URL
	tls       *tls.Config
	tokenFile string
	bearer    string // when there is no tokenFile
	namespace string // "" are all
}

var errOutside = errors.New("this is no pod (KUBERNETES_SERVICE_HOST is not set): expected kubernetes://HOST:PORT, or the path of a kubeconfig file")
