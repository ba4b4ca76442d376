package rpc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlineIsAContext(t *testing.T) {
	type key struct{}
	for name, use := range map[string]func(context.Context){
		"nobody waits":   func(context.Context) {},
		"somebody waits": func(ctx context.Context) { ctx.Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
				begin := func() *deadline {
					d := within(parent, time.Second)
					use(d)
					return d
				}
				d := begin()
				if at, ok := d.Deadline(); !ok || time.Until(at) != time.Second || d.Err() != nil || d.Value(key{}) != "v" {
					t.Errorf("at first: %v %v, %v, %v", at, ok, d.Err(), d.Value(key{}))
				}
				time.Sleep(time.Second - 1)
				if d.Err() != nil {
					t.Errorf("too early: %v", d.Err())
				}
				time.Sleep(time.Nanosecond)
				if synctest.Wait(); !errors.Is(d.Err(), context.DeadlineExceeded) {
					t.Errorf("at its time: %v", d.Err())
				}
				<-d.Done()
				d.end()
				if !errors.Is(d.Err(), context.DeadlineExceeded) {
					t.Errorf("ended after its time: %v", d.Err())
				}

				if d = begin(); true {
					d.end()
				}
				if !errors.Is(d.Err(), context.Canceled) {
					t.Errorf("ended: %v", d.Err())
				}
				<-d.Done()

				d = begin()
				defer d.end()
				told := make(chan bool)
				context.AfterFunc(d, func() { close(told) })
				child, stop := context.WithCancel(d)
				defer stop()
				cancel()
				<-told
				<-child.Done()
				if <-d.Done(); !errors.Is(d.Err(), context.Canceled) {
					t.Errorf("without its parent: %v", d.Err())
				}
			})
		})
	}
	early, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	d := within(early, time.Hour)
	defer d.end()
	if at, _ := d.Deadline(); time.Until(at) > time.Second {
		t.Errorf("later than its parent: %v", at)
	}
}
