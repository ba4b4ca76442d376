package complain_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/testserver"
)

func TestOneLineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out testserver.Output
		l := complain.New(slog.New(slog.NewTextHandler(&out, nil)))
		for range 10 {
			l.Warn("nonsense", "key", "k")
		}
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Fatalf("%d lines:\n%s", n, out.String())
		}
		synctest.Wait()
		timer := time.NewTimer(time.Minute)
		<-timer.C
		l.Warn("nonsense", "key", "k")
		if have := out.String(); strings.Count(have, "\n") != 2 || !strings.Contains(have, "more=9") {
			t.Errorf("after a minute:\n%s", have)
		}
	})
}
