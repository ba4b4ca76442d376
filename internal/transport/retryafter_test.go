package transport

import (
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC)
	const most = math.MaxInt64 / time.Second * time.Second
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "1": time.Second, " 120\t": 2 * time.Minute, "007": 7 * time.Second,
		"9223372036": most, "9223372037": most, "99999999999999999999999": most,
		"-1": 0, "+1": 0, "1.5": 0, "1s": 0, "soon": 0, "1, 2": 0,
		"Tue, 28 Jul 2026 12:00:30 GMT":   30 * time.Second,
		"Tuesday, 28-Jul-26 12:01:00 GMT": time.Minute,
		"Tue Jul 28 12:00:01 2026":        time.Second,
		"Tue, 28 Jul 2026 11:59:59 GMT":   0,
		"Fri, 31 Dec 9999 23:59:59 GMT":   math.MaxInt64,
	} {
		if got := RetryAfter(httpmsg.Header{{Name: "retry-after", Value: value}}, now); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
	if RetryAfter(nil, now) != 0 {
		t.Error("nothing asks for a pause")
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "1", "-1", "18446744073709551616", "Fri, 31 Dec 9999 23:59:59 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(seed)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, value string) {
		after := RetryAfter(httpmsg.Header{{Name: "Retry-After", Value: value}}, now)
		if after < 0 {
			t.Errorf("%q is %v", value, after)
		}
		if at, err := http.ParseTime(value); err == nil && at.Before(now) && after != 0 {
			t.Errorf("%q is over, and %v", value, after)
		}
	})
}
