package testserver

import "testing"

// SlowHTTPTest returns the path of slowhttptest, a client that is slow in all
// ways there are: slowhttptest on PATH, or what MICRO_TEST_SLOWHTTPTEST names.
func SlowHTTPTest(t testing.TB) string {
	t.Helper()
	return find(t, "slowhttptest", "MICRO_TEST_SLOWHTTPTEST")
}
