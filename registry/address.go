package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// UnixPrefix begins the address of a node that listens on a unix socket; the
// absolute path of the socket follows.
const UnixPrefix = "unix:"

// maxUnixPath is the longest path of a socket in bytes: that of Linux, which
// the other systems do not exceed.
const maxUnixPath = 107

// CheckUnix checks an address that begins with [UnixPrefix]. An error is a
// sentence that says what was expected.
func CheckUnix(address string) error {
	path, ok := strings.CutPrefix(address, UnixPrefix)
	control := strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f })
	if !ok || !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || control || len(path) > maxUnixPath {
		return fmt.Errorf("expected unix:/PATH, the path of a socket of at most %d bytes, got %q", maxUnixPath, clip(address))
	}
	return nil
}

// CheckNode checks where a node listens, for drivers of engines that take
// anything from anybody. An error is a sentence that says what was expected.
func CheckNode(n Node) error {
	switch {
	case strings.HasPrefix(n.Address, UnixPrefix):
		return CheckUnix(n.Address)
	case !isIP(n.Address) && !isHostName(n.Address):
		return fmt.Errorf("address: expected a host name or an IP address, got %q", clip(n.Address))
	case n.Port < 1 || n.Port > 65535:
		return fmt.Errorf("port: expected 1 to 65535, got %d", n.Port)
	}
	return nil
}

// splitAddress takes the address of a node as people write it, with or
// without a port, IPv6 with or without brackets, and returns the host bare
// and the port, "" when there is none.
func splitAddress(address string) (host, port string, err error) {
	if address == "" {
		return "", "", errors.New(`expected a host name or an IP address, got ""`)
	}
	if isIP(address) {
		return address, "", nil
	}
	if strings.HasPrefix(address, UnixPrefix) || address[0] == '/' {
		return address, "", CheckUnix(address)
	}
	if rest, bracket := strings.CutPrefix(address, "["); bracket {
		host, after, closed := strings.Cut(rest, "]")
		colon := strings.HasPrefix(after, ":")
		if !closed || !isIP(host) || !strings.Contains(host, ":") || after == ":" || (after != "" && !colon) {
			return "", "", fmt.Errorf("expected [IPv6 address] or [IPv6 address]:port, got %q", clip(address))
		}
		return host, strings.TrimPrefix(after, ":"), nil
	}
	host, port, found := strings.Cut(address, ":")
	if !isHostName(host) || (found && !isHostName(port)) {
		return "", "", fmt.Errorf("expected a host name or an IP address, with or without a port, got %q", clip(address))
	}
	return host, port, nil
}

// choosePort takes the port from the field of that name or from the address.
// "" and, because zero is what an unset field looks like, "0" are absent.
func choosePort(field, inAddress string) (int, error) {
	chosen := field
	if inAddress != "" {
		chosen = inAddress
		if field != "" && field != "0" && field != inAddress {
			return 0, fmt.Errorf("expected the port of Address, %s, or none, got %s", clip(inAddress), clip(field))
		}
	}
	if chosen == "" {
		return 0, errors.New("expected 1 to 65535, got none")
	}
	port, err := strconv.ParseUint(chosen, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("expected 1 to 65535, got %s", clip(chosen))
	}
	return int(port), nil
}

func isIP(s string) bool {
	ip, err := netip.ParseAddr(s)
	return err == nil && (ip.Zone() == "" || isHostName(ip.Zone()))
}

// isHostName is looser than RFC 1123 section 2.1, since container names hold
// underscores, and keeps out what would make a URL or a header of it.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !digit && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}
