// Package e2e holds the proof that the micro binary keeps its contract: its
// tests build it once, run real processes of it beside real engines and real
// nodes, and talk to them over HTTP and the command line only. It has no code
// of its own and imports nothing of the sidecar but the test servers.
//
// What one package does alone is tested there; here is what only shows when
// processes meet: choice and loss of engines, take-over, expiry, signals.
package e2e
