package nats

// appetite bounds the bytes that a member holds and asks for. The server counts
// the bytes of a request, but does not tell how many were left when it was
// fulfilled: what is under way is known as an upper bound, and exactly when
// nothing is.
type appetite struct {
	budget  int // 0 is no bound
	held    int
	asked   int // at most so many bytes may still come
	unit    int // what a message may well be
	biggest int // of those that came lately
	refused int // the next message is larger than that
}

// leastUnit keeps requests for small messages from being small.
const leastUnit = 1 << 10

// want is how many of up to room messages shall be asked for, and how many
// bytes of them; 0 is any.
func (a *appetite) want(room int, underWay, holding bool) (batch, most int) {
	if a.budget == 0 {
		return room, 0
	}
	if !underWay {
		a.asked = 0
	}
	unit := max(a.unit, leastUnit)
	need := max(min(unit, a.budget), a.refused+1)
	free := a.budget - a.held - a.asked
	switch {
	case free >= need:
		return room, min(max(2*room*unit, 2*need), free)
	case underWay || holding:
		return 0, 0
	}
	return 1, 0 // one message always may be
}

// ask notes that so many bytes were asked for.
func (a *appetite) ask(most int) {
	a.asked += most
	a.unit = max(a.unit-a.unit/8, a.biggest)
	a.biggest = 0
}

// take notes a message that came.
func (a *appetite) take(size int) {
	a.held += size
	a.asked = max(a.asked-size, 0)
	a.biggest = max(a.biggest, size)
	a.refused = 0
}

func (a *appetite) settle(size int) { a.held -= size }
