package mailbox

import (
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func delivery(size int) broker.Delivery {
	return broker.Delivery{Message: broker.Message{Body: make([]byte, size)}}
}

func TestBoxIsBounded(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		size   int
		want   int
	}{
		{"messages", Limits{Messages: 3, Bytes: 1000}, 10, 3},
		{"bytes", Limits{Messages: 100, Bytes: 45}, 10, 4},
		{"one is always taken", Limits{Messages: 100, Bytes: 5}, 10, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				calls := 0
				b := New(func(broker.Delivery) { calls++; <-release }, test.limits)
				b.Put(delivery(test.size))
				synctest.Wait() // the handler has the first one and blocks
				taken := 0
				for range 10 {
					if b.Put(delivery(test.size)) {
						taken++
					}
				}
				if taken != test.want {
					t.Errorf("%d were taken, want %d", taken, test.want)
				}
				close(release)
				synctest.Wait()
				if calls != test.want+1 {
					t.Errorf("the handler was called %d times, want %d", calls, test.want+1)
				}
				if !b.Put(delivery(test.size)) {
					t.Error("a box that was emptied takes nothing")
				}
				b.Close()
			})
		})
	}
}

func TestCloseWaitsForTheHandlerAndDropsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		calls := 0
		b := New(func(broker.Delivery) { calls++; <-release }, Limits{Messages: 10, Bytes: 100})
		b.Put(delivery(1))
		b.Put(delivery(1))
		synctest.Wait()
		closed := false
		go func() { b.Close(); closed = true }()
		synctest.Wait()
		if closed {
			t.Error("Close returned while the handler was running")
		}
		close(release)
		synctest.Wait()
		if !closed || calls != 1 {
			t.Errorf("closed %v after %d calls, want true after 1", closed, calls)
		}
		if b.Put(delivery(1)) {
			t.Error("a closed box took a delivery")
		}
		b.Close()
	})
}
