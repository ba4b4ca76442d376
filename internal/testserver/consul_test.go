package testserver_test

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConsul(t *testing.T) {
	s := testserver.Consul(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answers := func() bool {
		response, err := client.Get("http://" + s.Addr + "/v1/status/leader")
		if err != nil {
			return false
		}
		return response.Body.Close() == nil && response.StatusCode == http.StatusOK
	}
	if !answers() {
		t.Error("it does not answer")
	}
	s.Stop()
	if answers() {
		t.Error("it answers after Stop")
	}
	s.Restart()
	if !answers() {
		t.Error("it does not answer after Restart")
	}
}
