// Package accesslog writes a line for each request that was answered. It owns
// the lines' form and the file; what a request was is its caller's to tell. It
// never holds up who answers: lines wait in a buffer of fixed size, and those
// that find it full are dropped and counted.
//
// Queries, headers and bodies are not in a line: they hold secrets.
package accesslog

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is a request that was answered.
type Entry struct {
	Begun time.Time
	Took  time.Duration // to the end of the answer
	// Remote is the client's address, Method, Host and Path as they came, the
	// path without its query; Proto is like "HTTP/1.1".
	Remote, Method, Host, Path, Proto string
	Status                            int   // 0: there was no answer
	Sent                              int64 // bytes of the answer's body
	Service, Node                     string
	RequestID, TraceID                string
	UserAgent                         string
}

// The forms of lines.
const (
	JSON     = "json"
	Combined = "combined"
)

// waiting is how many lines may wait for the writer.
const waiting = 4096

// Options say what is written, and where.
type Options struct {
	Path   string // of the file, or "-" for standard output
	Format string
	// Slow leaves out answers that took less, unless they are 5xx or none were
	// given; 0 writes all.
	Slow time.Duration
}

// Log writes lines. Its methods are safe for concurrent use.
type Log struct {
	o       Options
	lines   chan []byte
	reopen  chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
	dropped atomic.Uint64
	buffers sync.Pool
	fail    func(error)
}

// Open opens the file to append to it, and begins to write. fail is told, once
// in a row, what goes wrong later.
func Open(o Options, fail func(error)) (*Log, error) {
	out, err := open(o.Path)
	if err != nil {
		return nil, err
	}
	l := &Log{
		o: o, lines: make(chan []byte, waiting), reopen: make(chan struct{}, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}), fail: fail,
	}
	l.buffers.New = func() any { return make([]byte, 0, 512) }
	go l.write(out)
	return l, nil
}

// stdout is not ours to close.
type stdout struct{ io.Writer }

func (stdout) Close() error { return nil }

func open(path string) (io.WriteCloser, error) {
	if path == "-" {
		return stdout{os.Stdout}, nil
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return file, nil
}

// Wants reports whether such an answer gets a line.
func (l *Log) Wants(status int, took time.Duration) bool {
	return took >= l.o.Slow || status == 0 || status >= 500
}

// Add writes a line, or drops it when too many wait.
func (l *Log) Add(e *Entry) {
	line := l.buffers.Get().([]byte)[:0]
	if l.o.Format == Combined {
		line = appendCombined(line, e)
	} else {
		line = appendJSON(line, e)
	}
	select {
	case l.lines <- line:
	default:
		l.dropped.Add(1)
		l.release(line)
	}
}

// release keeps a line's memory for another.
func (l *Log) release(line []byte) {
	if cap(line) <= 4<<10 {
		l.buffers.Put(line) //nolint:staticcheck // SA6002: a slice header a line is what it costs
	}
}

// Dropped is how many lines were dropped.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Reopen opens the file anew, which somebody has moved away.
func (l *Log) Reopen() {
	select {
	case l.reopen <- struct{}{}:
	default: // it is about to
	}
}

// Close writes what waits and closes the file. Lines that are added later are
// lost.
func (l *Log) Close() {
	l.once.Do(func() { close(l.stop) })
	<-l.stopped
}

// write is the one goroutine that writes.
func (l *Log) write(out io.WriteCloser) {
	defer close(l.stopped)
	buffered := bufio.NewWriterSize(out, 64<<10)
	failing := false
	check := func(err error) {
		if err != nil && !failing {
			l.fail(err)
		}
		if err != nil {
			buffered.Reset(out) // a bufio.Writer stays broken
		}
		failing = err != nil
	}
	put := func(line []byte) {
		_, err := buffered.Write(line)
		if err != nil {
			l.dropped.Add(1)
			check(err)
		}
		l.release(line)
	}
	for {
		select {
		case line := <-l.lines:
			put(line)
			if len(l.lines) == 0 {
				check(buffered.Flush())
			}
		case <-l.reopen:
			check(buffered.Flush())
			next, err := open(l.o.Path)
			if err != nil {
				l.fail(err) // the old one is better than none
				continue
			}
			_ = out.Close() // all that it got is written
			out = next
			buffered.Reset(out)
		case <-l.stop:
			for len(l.lines) > 0 {
				put(<-l.lines)
			}
			check(buffered.Flush())
			_ = out.Close()
			return
		}
	}
}
