//go:build unix

package testserver

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Pause stops the member's clock: it keeps its connections and answers
// nothing, until Continue.
func (s *EtcdServer) Pause() { s.process.pause() }

// Continue lets a paused member run on.
func (s *EtcdServer) Continue() { _ = s.process.child.Signal(syscall.SIGCONT) } // fails only if it is gone

// Pause stops the agent's clock: it keeps its connections and answers nothing,
// until Continue.
func (s *ConsulServer) Pause() { s.process.pause() }

// Continue lets a paused agent run on.
func (s *ConsulServer) Continue() { _ = s.process.child.Signal(syscall.SIGCONT) } // as above

// Pause stops the server's clock: it keeps its connections and answers
// nothing, until Continue.
func (s *RedisServer) Pause() { s.process.pause() }

// Continue lets a paused server run on.
func (s *RedisServer) Continue() { _ = s.process.child.Signal(syscall.SIGCONT) } // as above

// Pause stops the node's clock: it keeps its connections and answers nothing,
// until Continue.
func (s *RabbitMQServer) Pause() {
	s.process.signalGroup(syscall.SIGSTOP)
	awaitStopped(func(pid, group int) bool { return group == s.process.child.Pid })
}

// Continue lets a paused node run on.
func (s *RabbitMQServer) Continue() { s.process.signalGroup(syscall.SIGCONT) }

func (p *process) pause() {
	_ = p.child.Signal(syscall.SIGSTOP) // fails only if it is gone
	awaitStopped(func(pid, group int) bool { return pid == p.child.Pid })
}

// awaitStopped returns when all threads of the processes have stopped, which
// they do one after the other when a machine is busy; or after some seconds, and
// at once where the system does not tell.
func awaitStopped(these func(pid, group int) bool) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(time.Millisecond) {
		running := false
		all, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
		for _, file := range all {
			if _, pid, group := readStat(file); these(pid, group) {
				running = running || runs(pid)
			}
		}
		if !running {
			return
		}
	}
}

// runs tells that one of a process's threads is neither stopped nor dead.
func runs(pid int) bool {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat") // as above
	for _, file := range threads {
		switch state, _, _ := readStat(file); state {
		case "T", "t", "Z", "X", "":
		default:
			return true
		}
	}
	return false
}

// readStat reads what Linux tells of a process or thread, see proc_pid_stat(5);
// of one that is gone nothing.
func readStat(file string) (state string, pid, group int) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", 0, 0
	}
	number, _, _ := bytes.Cut(text, []byte(" "))
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 3 {
		return "", 0, 0
	}
	pid, _ = strconv.Atoi(string(number)) // the system writes numbers
	group, _ = strconv.Atoi(string(fields[2]))
	return string(fields[0]), pid, group
}

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
