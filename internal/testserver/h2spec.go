package testserver

import "testing"

// H2Spec returns the path of h2spec, which tests HTTP/2 servers: h2spec on
// PATH, or what MICRO_TEST_H2SPEC names, or .cache/bin/h2spec in the checkout.
func H2Spec(t testing.TB) string {
	t.Helper()
	return find(t, "h2spec", "MICRO_TEST_H2SPEC")
}
