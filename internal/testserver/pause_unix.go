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

// Pause stops the node's clock: it keeps its connections and answers nothing,
// until Continue.
func (s *RabbitMQServer) Pause() { s.process.signalGroup(syscall.SIGSTOP) }

// Continue lets a paused node run on.
func (s *RabbitMQServer) Continue() { s.process.signalGroup(syscall.SIGCONT) }

// signalGroup signals a process of startGroup and all that it has started.
func (p *process) signalGroup(signal syscall.Signal) {
	_ = syscall.Kill(-p.child.Pid, signal) // fails only if they are gone
}

// killGroup ends them without warning and returns when the first one is gone.
func (p *process) killGroup() {
	p.signalGroup(syscall.SIGKILL)
	_ = p.child.Kill() // where there are no groups
	<-p.ended
}
