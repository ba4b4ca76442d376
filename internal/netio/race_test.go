//go:build race

package netio

const racing = true
