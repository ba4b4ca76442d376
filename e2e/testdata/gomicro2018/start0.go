//go:build v0

package main

import "github.com/micro/go-micro/server"

// A server of then leaves it to go-micro's service to register it.

func start(s server.Server) error {
	if err := s.Start(); err != nil {
		return err
	}
	return s.Register()
}

func stop(s server.Server) error {
	if err := s.Deregister(); err != nil {
		return err
	}
	return s.Stop()
}
