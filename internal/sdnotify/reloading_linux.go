package sdnotify

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Reloading says that the service reads its configuration again; Ready follows
// when it has. The time is what Type=notify-reload tells the reload by that it
// asked for.
func Reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return reloading
	}
	return reloading + "\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)
}
