package transport

import (
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// RetryAfter is how long after now the sender of an answer wants to be left
// alone (RFC 9110 section 10.2.3): a number of seconds or a date. What is
// neither counts for nothing.
func RetryAfter(h httpmsg.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if seconds, ok := digits(text); ok {
		return time.Duration(min(seconds, int64(math.MaxInt64/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}

// digits reads a number of decimal digits; one that is too large is the largest.
func digits(text string) (n int64, ok bool) {
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false
		}
		if d := int64(c - '0'); n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
		} else {
			n = n*10 + d
		}
	}
	return n, text != ""
}
