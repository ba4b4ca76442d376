package certs

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits of the listener without TLS.
const (
	plainTimeout = 10 * time.Second
	plainHead    = 16 << 10
)

// serve answers challenges and redirects everything else to the port with TLS.
func (a *ACME) serve(l net.Listener, tlsPort int) {
	a.plain = &http.Server{
		Handler:     a.issuer.HTTPChallengeHandler(redirect(tlsPort)),
		ReadTimeout: plainTimeout, WriteTimeout: plainTimeout, IdleTimeout: plainTimeout, MaxHeaderBytes: plainHead,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	a.plain.SetKeepAlivesEnabled(false) // a redirect is all that there is
	a.served = make(chan struct{})
	go func() {
		defer close(a.served)
		if err := a.plain.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the listener of --acme_http_address broke: challenges by HTTP-01 fail", "error", err)
		}
	}()
}

// redirect sends clients to the same host with TLS. 308 keeps method and body
// (RFC 9110 section 15.4.9).
func redirect(tlsPort int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.Trim(host, "[]")
		if host == "" || !strings.HasPrefix(r.RequestURI, "/") {
			http.Error(w, "this address redirects to https: expected a Host and a path", http.StatusBadRequest)
			return
		}
		authority := host
		switch {
		case tlsPort != 443:
			authority = net.JoinHostPort(host, strconv.Itoa(tlsPort))
		case strings.Contains(host, ":"):
			authority = "[" + host + "]"
		}
		w.Header().Set("Location", "https://"+authority+r.RequestURI)
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}
