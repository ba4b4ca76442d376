//go:build !v0

package main

import "github.com/micro/go-micro/server"

func start(s server.Server) error { return s.Start() }
func stop(s server.Server) error  { return s.Stop() }
