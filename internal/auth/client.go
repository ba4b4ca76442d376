package auth

import (
	"encoding/base64"
	"strings"
)

// Header carries a token on any path.
const Header = "Micro-Token"

// A page in a browser cannot set header fields on a WebSocket. It offers the
// subprotocols Protocol and ProtocolToken + the token in base64url, without
// padding; the sidecar selects the first.
const (
	Protocol      = "micro"
	ProtocolToken = "micro.token."
)

// Bearer returns the token of an Authorization field (RFC 6750), or "".
func Bearer(authorization string) string {
	const scheme = "Bearer "
	if len(authorization) <= len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return ""
	}
	return strings.TrimSpace(authorization[len(scheme):])
}

// Basic returns the password of an Authorization field (RFC 7617), or "". Whoever
// sends one is a browser that asked a person for the token; the name is any.
func Basic(authorization string) string {
	const scheme = "Basic "
	if len(authorization) <= len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return ""
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimSpace(authorization[len(scheme):]))
	if err != nil {
		return ""
	}
	_, password, _ := strings.Cut(string(pair), ":")
	return password
}

// Offered returns the token among the subprotocols of a WebSocket handshake,
// or "".
func Offered(protocols string) string {
	for protocol := range strings.SplitSeq(protocols, ",") {
		encoded, ok := strings.CutPrefix(strings.TrimSpace(protocol), ProtocolToken)
		if !ok {
			continue
		}
		token, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
		if err == nil {
			return string(token)
		}
	}
	return ""
}

// Offers reports whether the sidecar's subprotocol is among those of a
// handshake, so that it may be selected.
func Offers(protocols string) bool {
	for protocol := range strings.SplitSeq(protocols, ",") {
		if strings.TrimSpace(protocol) == Protocol {
			return true
		}
	}
	return false
}

// Withhold returns the subprotocols without the sidecar's own.
func Withhold(protocols string) string {
	var rest []string
	for protocol := range strings.SplitSeq(protocols, ",") {
		protocol = strings.TrimSpace(protocol)
		if protocol != "" && protocol != Protocol && !strings.HasPrefix(protocol, ProtocolToken) {
			rest = append(rest, protocol)
		}
	}
	return strings.Join(rest, ", ")
}
