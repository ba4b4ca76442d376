// Package docs holds the documentation. It has no code: its test runs what the
// pages tell a reader to type, against a real sidecar and the Go greeters.
package docs
