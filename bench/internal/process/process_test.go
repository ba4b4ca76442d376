package process

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseStatus(t *testing.T) {
	const text = "Name:\tmicro\nVmHWM:\t 99999 kB\nVmRSS:\t   20480 kB\nThreads:\t9\n"
	if got, err := parseStatus(text, "VmRSS:"); err != nil || got != 20480*1024 {
		t.Errorf("got %d, %v", got, err)
	}
	if got, err := parseStatus(text, "VmHWM:"); err != nil || got != 99999*1024 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "VmRSS:\n", "VmRSS: x kB\n", "VmRSS: 12 MB\n"} {
		if got, err := parseStatus(bad, "VmRSS:"); err == nil {
			t.Errorf("%q: got %d, expected an error", bad, got)
		}
	}
}

func TestParseCPUTime(t *testing.T) {
	const stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0"
	if got, err := parseCPUTime([]byte(stat)); err != nil || got != 1750*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194560 1 2 3 4 x 25 9"} {
		if got, err := parseCPUTime([]byte(bad)); err == nil {
			t.Errorf("%q: got %v, expected an error", bad, got)
		}
	}
}

func TestOwnAccounting(t *testing.T) {
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for now := before; now < before+50*time.Millisecond; { // busy until it shows
		if now, err = CPUTime(os.Getpid()); err != nil || time.Now().After(deadline) {
			t.Fatal(now, err)
		}
	}
	if err := ResetPeak(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	for what, read := range map[string]func(int) (int64, error){"resident": Resident, "peak": Peak} {
		if n, err := read(os.Getpid()); err != nil || n < 1e6 || n > 1e10 {
			t.Errorf("%s: %d bytes, %v", what, n, err)
		}
	}
}
