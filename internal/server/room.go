package server

// room bounds the clients' connections, on all listeners together. A nil one
// has no bounds.
type room struct {
	taken  chan struct{}
	closed chan struct{}
}

// newRoom is a room for n connections, nil for 0.
func newRoom(n int) *room {
	if n == 0 {
		return nil
	}
	return &room{taken: make(chan struct{}, n), closed: make(chan struct{})}
}

// enter waits until there is room; false means that it was closed meanwhile.
func (r *room) enter() bool {
	if r == nil {
		return true
	}
	select {
	case r.taken <- struct{}{}:
		return true
	case <-r.closed:
		return false
	}
}

// leave is called once for each connection that has entered, when it is closed.
func (r *room) leave() {
	if r != nil {
		<-r.taken
	}
}

// close lets nobody wait any more. It is called once.
func (r *room) close() {
	if r != nil {
		close(r.closed)
	}
}
