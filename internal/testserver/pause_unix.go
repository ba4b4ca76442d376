//go:build unix

package testserver

import "syscall"

// Pause stops the member's clock: it keeps its connections and answers
// nothing, until Continue.
func (s *EtcdServer) Pause() { _ = s.process.child.Signal(syscall.SIGSTOP) } // fails only if it is gone

// Continue lets a paused member run on.
func (s *EtcdServer) Continue() { _ = s.process.child.Signal(syscall.SIGCONT) } // as above

// Pause stops the agent's clock: it keeps its connections and answers nothing,
// until Continue.
func (s *ConsulServer) Pause() { _ = s.process.child.Signal(syscall.SIGSTOP) } // as above

// Continue lets a paused agent run on.
func (s *ConsulServer) Continue() { _ = s.process.child.Signal(syscall.SIGCONT) } // as above

// Pause stops the server's clock: it keeps its connections and answers
// nothing, until Continue.
func (s *RedisServer) Pause() { _ = s.process.child.Signal(syscall.SIGSTOP) } // as above

// Continue lets a paused server run on.
func (s *RedisServer) Continue() { _ = s.process.child.Signal(syscall.SIGCONT) } // as above
