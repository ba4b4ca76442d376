// Package sdnotify tells a service manager how the process is, in the protocol
// of sd_notify(3): datagrams on the unix socket that $NOTIFY_SOCKET names. When
// to say what is the caller's affair.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The states that are told without a value.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Watchdog = "WATCHDOG=1"

	reloading = "RELOADING=1" // see Reloading
)

// Variables are those of the environment that are meant for this process
// alone: a child that had them would speak in our name.
func Variables() []string { return []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} }

// Notifier tells a service manager. A nil one tells nobody. It is safe for
// concurrent use.
type Notifier struct {
	address  *net.UnixAddr
	watchdog time.Duration
}

// New reads the environment through get; nil means that no service manager
// wants to know.
func New(get func(string) string) (*Notifier, error) {
	path := get("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %q: expected the path of a socket, or @ and an abstract name", path)
	}
	n := &Notifier{address: &net.UnixAddr{Name: path, Net: "unixgram"}}
	usec := get("WATCHDOG_USEC")
	if pid := get("WATCHDOG_PID"); usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n, nil
	}
	period, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || period < 1 || period > int64(24*time.Hour/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC: %q: expected microseconds, at most a day", usec)
	}
	n.watchdog = time.Duration(period) * time.Microsecond
	return n, nil
}

// Period is the time between two signs of life that the service manager
// expects at most, 0 when it expects none.
func (n *Notifier) Period() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Tell sends states, each "NAME=value". It waits no longer than a second for a
// service manager that does not read.
func (n *Notifier) Tell(states ...string) error {
	if n == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.address)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Status is a state of free text for people who look.
func Status(text string) string { return "STATUS=" + text }

// Extend asks for at least d more before the service manager loses patience.
func Extend(d time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10)
}
