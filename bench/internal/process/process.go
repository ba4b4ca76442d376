// Package process reads from Linux's accounting what a process costs, and
// starts sidecars for the programs that measure them.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Supported is an error on systems without the accounting read here.
func Supported() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("memory and CPU time are read from /proc, which %s does not have", runtime.GOOS)
	}
	return nil
}

// Resident is the resident memory of a process in bytes.
func Resident(pid int) (int64, error) { return status(pid, "VmRSS:") }

// Peak is the most that was resident since the process began, or since
// [ResetPeak].
func Peak(pid int) (int64, error) { return status(pid, "VmHWM:") }

// ResetPeak makes [Peak] begin anew (proc(5), clear_refs).
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

func status(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	return parseStatus(string(text), field)
}

// parseStatus reads a line like "VmRSS:     1234 kB" of proc(5)'s status file.
func parseStatus(text, field string) (int64, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != field || fields[2] != "kB" {
			continue
		}
		kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read resident memory: %w", err)
		}
		return kilobytes * 1024, nil
	}
	return 0, fmt.Errorf("read resident memory: no %s in the status file", strings.TrimSuffix(field, ":"))
}

// CPUTime is the CPU time of a process, user and system, to 10 ms (proc(5)).
func CPUTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return parseCPUTime(stat)
}

func parseCPUTime(stat []byte) (time.Duration, error) {
	// The name in parentheses may hold anything; utime and stime are the 12th
	// and 13th fields behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("read CPU time: too few fields in the stat file")
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
