package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/registry"
)

// The parsers of single values. Their errors quote the value and name what was
// expected; the caller puts the setting's name in front.

// expected is the error of a value that is not what it should be.
func expected(value, what string) error { return fmt.Errorf("%q: expected %s", value, what) }

// parseText takes any text without control characters.
func parseText(s string) (string, error) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", expected(s, "text without control characters")
	}
	return s, nil
}

// parseName takes a text that is not empty.
func parseName(s string) (string, error) {
	if strings.TrimSpace(s) == "" {
		return "", expected(s, "a name")
	}
	return parseText(s)
}

// parseBool takes what strconv.ParseBool takes.
func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, expected(s, "true or false")
	}
	return b, nil
}

// parseInt returns a parser of the integers from low to high.
func parseInt(low, high int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return 0, expected(s, fmt.Sprintf("a number from %d to %d", low, high))
		}
		return n, nil
	}
}

// maxDuration bounds every duration: nothing here waits for longer, and sums
// of a few cannot overflow.
const maxDuration = 10 * 365 * 24 * time.Hour

const durationForm = "a duration such as 500ms, 5s or 1m30s"

// parseDuration takes Go's durations, zero included.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, expected(s, durationForm)
	case d < 0:
		return 0, expected(s, durationForm+", not a negative one")
	case d > maxDuration:
		return 0, expected(s, durationForm+", at most ten years")
	}
	return d, nil
}

// parsePositive takes durations above zero.
func parsePositive(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d == 0 {
		return 0, expected(s, durationForm+", longer than zero")
	}
	return d, err
}

// parseSeconds takes a number of seconds, or a duration; at least one second.
func parseSeconds(s string) (time.Duration, error) {
	text := s
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		text += "s"
	}
	d, err := parseDuration(text)
	if err != nil || d < time.Second {
		return 0, expected(s, "a number of seconds, at least 1, such as 30, or a duration such as 1m30s")
	}
	return d, nil
}

// maxSize is the largest --max_body_size: bodies of that kind are held in
// memory, several at a time.
const maxSize = 1 << 30

// parseSize takes a size of what is held in memory.
func parseSize(s string) (int64, error) {
	n, ok := readSize(s)
	if !ok || n > maxSize {
		return 0, expected(s, "a size from 1 byte to 1GiB, such as 65536, 512KiB, 4MiB or 4MB")
	}
	return n, nil
}

// parseDiskSize takes a size of what is held on disk.
func parseDiskSize(s string) (int64, error) {
	n, ok := readSize(s)
	if !ok {
		return 0, expected(s, "a size, such as 500MB, 10GiB or 2TiB")
	}
	return n, nil
}

// readSize reads a number of bytes, at least one, with or without a unit.
func readSize(s string) (int64, bool) {
	digits := strings.TrimRightFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	unit, ok := sizeUnit(strings.TrimSpace(s[len(digits):]))
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 1 || strings.HasPrefix(digits, "+") || n > math.MaxInt64/unit {
		return 0, false
	}
	return n * unit, true
}

// sizeUnit returns the number of bytes of a unit.
func sizeUnit(name string) (int64, bool) {
	switch strings.ToLower(name) {
	case "", "b":
		return 1, true
	case "kb":
		return 1000, true
	case "kib":
		return 1 << 10, true
	case "mb":
		return 1000 * 1000, true
	case "mib":
		return 1 << 20, true
	case "gb":
		return 1000 * 1000 * 1000, true
	case "gib":
		return 1 << 30, true
	case "tb":
		return 1000 * 1000 * 1000 * 1000, true
	case "tib":
		return 1 << 40, true
	}
	return 0, false
}

// parseChoice returns a parser of a word out of a few; synonyms maps further
// words to them.
func parseChoice(words []string, synonyms map[string]string) func(string) (string, error) {
	return func(s string) (string, error) {
		for _, word := range words {
			if s == word {
				return s, nil
			}
		}
		if word, ok := synonyms[s]; ok {
			return word, nil
		}
		return "", expected(s, strings.Join(words[:len(words)-1], ", ")+" or "+words[len(words)-1])
	}
}

// parseSelector takes go-micro's names of selectors; the others are looked for
// in finishSelector, which knows the table.
func parseSelector(s string) (string, error) {
	if s == "default" || s == "cache" {
		return "p2c", nil
	}
	return s, nil
}

// parseLevel takes the names of the levels of log/slog.
func parseLevel(s string) (*slog.Level, error) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(s, level.String()) {
			return &level, nil
		}
	}
	return nil, expected(s, "debug, info, warn or error")
}

const (
	addressForm = "HOST:PORT, such as 127.0.0.1:8081 or [::1]:8081"
	listenForm  = addressForm + ", the host left out for all interfaces; or unix:/PATH"
)

// parseAddress takes the address of something that is reached: both host and
// port, the port from 1 on.
func parseAddress(s string) (hostPort, error) {
	a, err := splitAddress(s)
	if err != nil || a.host == "" || a.port == 0 {
		return hostPort{}, expected(s, addressForm)
	}
	return a, nil
}

// parseNode is parseAddress for nodes, which may listen on unix sockets.
func parseNode(s string) (hostPort, error) {
	path, ok, err := unixPath(s)
	if !ok {
		return parseAddress(s)
	}
	if address := registry.UnixPrefix + path; err == nil && registry.CheckUnix(address) == nil {
		return hostPort{host: address}, nil
	}
	return hostPort{}, expected(s, "unix:/PATH, such as unix:/run/app.sock, of at most 107 bytes")
}

// parseListen takes an address to listen on: port 0 lets the system choose.
func parseListen(s string) (string, error) {
	if path, ok, err := unixPath(s); ok {
		return "unix:" + path, err
	}
	return parseListenTCP(s)
}

// unixPath returns the path of a unix socket's address: unix:/path, or
// unix:///path as URLs have it. ok is false when it is no such address.
func unixPath(s string) (path string, ok bool, err error) {
	path, ok = strings.CutPrefix(s, "unix:")
	if rest, found := strings.CutPrefix(path, "//"); found {
		path = rest
	}
	if ok && (!filepath.IsAbs(path) || strings.HasSuffix(path, "/") || strings.ContainsFunc(path, unicode.IsControl)) {
		return "", true, expected(s, "unix:/PATH, such as unix:/run/micro.sock")
	}
	return path, ok, nil
}

// parseListenTCP is parseListen without unix sockets.
func parseListenTCP(s string) (string, error) {
	a, err := splitAddress(s)
	if err != nil {
		return "", expected(s, listenForm)
	}
	return net.JoinHostPort(a.host, strconv.Itoa(a.port)), nil
}

var errAddress = errors.New("no address")

// splitAddress splits "host:port". The host is an IP address, a host name or
// empty; the port is a number from 0 to 65535.
func splitAddress(s string) (hostPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return hostPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return hostPort{}, err
	}
	if !validHost(host) {
		return hostPort{}, errAddress
	}
	return hostPort{host, int(n)}, nil
}

// validHost reports whether host can be one: an IP address or a name of the
// characters that resolvers take.
func validHost(host string) bool {
	if host == "" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return len(host) <= 255 && !strings.ContainsFunc(host, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && r != '-' && r != '.' && r != '_'
	})
}

// parseEngineAddress takes what a driver may be told: a URL, or one without its
// scheme, or several. The drivers know the rest.
func parseEngineAddress(s string) (string, error) {
	_, err := engineurl.Parse("any", s)
	if err != nil && s != "" && !slices.ContainsFunc(strings.Split(s, ","), func(part string) bool {
		_, err := engineurl.Parse("any", part)
		return part != "" && err != nil
	}) {
		err = nil // each by itself can be one; who they are for is known later
	}
	if err != nil && !strings.Contains(s, "@") { // there may be a password before it
		err = fmt.Errorf("%.200q: %w", s, err)
	}
	return s, err
}

// parseProbe takes the URL of a health check: tcp, or what parseProbeURL takes.
func parseProbe(s string) (string, error) {
	address, ok := strings.CutPrefix(s, "tcp://")
	if !ok {
		return parseProbeURL(s)
	}
	node, err := parseNode(address)
	if err != nil {
		return "", expected(s, "tcp://HOST:PORT, such as tcp://127.0.0.1:9090, or tcp://unix:/PATH")
	}
	return health.TCP(node.String()), nil
}

// parseProbeURL takes an http or https URL, or one with a unix socket in it.
func parseProbeURL(s string) (string, error) {
	if path, probe, ok := health.Unix(s); ok {
		if _, err := url.Parse(probe); err != nil || registry.CheckUnix(registry.UnixPrefix+path) != nil {
			return "", expected(s, "http://unix:/PATH:/URL, such as http://unix:/run/app.sock:/health")
		}
		return s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || badPort(u) {
		return "", expected(s, "an http or https URL, such as http://127.0.0.1:9090/health or http://unix:/run/app.sock:/health; or tcp://HOST:PORT")
	}
	return s, nil
}

// badPort reports whether u spells out a port that no listener can have.
func badPort(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		return strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err != nil || n == 0
}
