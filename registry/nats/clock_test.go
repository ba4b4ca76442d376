package nats

import (
	"testing"
	"time"
)

// A bucket that was made anew counts from 1: what is known of a record does not
// hold for another one with its number.
func TestLifetimesOfAnotherHistory(t *testing.T) {
	at := func(revision uint64, written time.Time) *entry {
		return &entry{key: "k", revision: revision, written: written, deadline: steady(written)}
	}
	now := time.Now()
	var l lifetimes
	before := at(15, now.Add(-time.Minute)) // it has expired, with its engine
	l.learn(before)
	for revision := uint64(14); revision <= 16; revision++ {
		e := at(revision, now.Add(time.Minute))
		if l.correct(e); e.expired(now) {
			t.Errorf("revision %d is taken for one of the bucket before", revision)
		}
	}
	anew := at(3, now.Add(time.Minute))
	l.learn(anew)
	anew.deadline = now // as a clock that was set has it
	if l.correct(anew); anew.expired(now.Add(time.Second)) {
		t.Error("a record with a smaller number was not learnt")
	}
	l.learn(at(2, now.Add(30*time.Second))) // another watch is behind
	anew.deadline = now
	if l.correct(anew); anew.expired(now.Add(time.Second)) {
		t.Error("an older record took the place of a newer one")
	}
}
