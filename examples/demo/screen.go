package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// What of a long answer is shown.
const (
	maxLines   = 12
	maxColumns = 400
)

// screen prints for people; in colours only on a terminal.
type screen struct {
	out    io.Writer
	colour bool
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{f, terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (s *screen) heading(text string) { s.line("\n" + s.paint("1", text)) }

func (s *screen) command(text string) { s.line("\n  " + s.paint("36", "$ "+text)) }

func (s *screen) note(text string) { s.line("\n  " + text) }

func (s *screen) good(text string) { s.line("\n" + s.paint("32", text)) }

// answer prints what a command said, shortened when it is long.
func (s *screen) answer(text string) {
	if text == "" {
		s.line("  " + s.paint("2", "(done, nothing to say)"))
		return
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		if i == maxLines {
			s.line("  " + s.paint("2", fmt.Sprintf("… %d lines more", len(lines)-i)))
			return
		}
		if runes := []rune(line); len(runes) > maxColumns {
			line = string(runes[:maxColumns]) + s.paint("2", " …")
		}
		s.line("  " + line)
	}
}

func (s *screen) line(text string) { fmt.Fprintln(s.out, text) }

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
