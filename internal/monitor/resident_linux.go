package monitor

import (
	"bytes"
	"os"
	"strconv"
)

// resident is the process's memory in bytes, 0 when the system does not tell.
func resident() uint64 {
	text, err := os.ReadFile("/proc/self/statm") // proc(5): size resident …, in pages
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}
