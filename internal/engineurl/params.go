package engineurl

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/suggest"
)

// Params are the parameters of an address. A driver asks for each that it
// knows, and at the end for [Params.Err]: whatever it did not ask for is a
// mistake, so there is no second list of names to keep. A parameter that is
// absent, or wrong, has its default. It is for one goroutine.
type Params struct {
	values url.Values
	known  []string
	err    error // the first
}

// Query returns the parameters of u. nil has none.
func Query(u *url.URL) *Params {
	p := &Params{}
	if u == nil {
		return p
	}
	var err error
	if p.values, err = url.ParseQuery(u.RawQuery); err != nil {
		p.err = fmt.Errorf("parameters: %w", err)
	}
	return p
}

// Has reports whether a parameter is there. It does not ask for it.
func (p *Params) Has(name string) bool { return len(p.values[name]) > 0 }

// String returns a text, def when it is not there. An empty one is a mistake.
func (p *Params) String(name, def string) string {
	text, ok := p.get(name)
	if !ok {
		return def
	}
	return text
}

// Choice returns one of the words, the first when it is not there.
func (p *Params) Choice(name string, words ...string) string {
	text, ok := p.get(name)
	if !ok {
		return words[0]
	}
	if !slices.Contains(words, text) {
		last := len(words) - 1
		p.Fail(name, text, strings.Join(words[:last], ", ")+" or "+words[last])
		return words[0]
	}
	return text
}

// Bool returns true or false, false when it is not there.
func (p *Params) Bool(name string) bool {
	return p.Choice(name, "false", "true") == "true"
}

// Int returns a number from low to high.
func (p *Params) Int(name string, def, low, high int) int {
	text, ok := p.get(name)
	if !ok {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		p.Fail(name, text, fmt.Sprintf("a number from %d to %d", low, high))
		return def
	}
	return n
}

// Duration returns a duration from low to high, written as 500ms or 1m30s.
func (p *Params) Duration(name string, def, low, high time.Duration) time.Duration {
	text, ok := p.get(name)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < low || d > high {
		p.Fail(name, text, fmt.Sprintf("a duration from %v to %v", low, high))
		return def
	}
	return d
}

// Fail notes that a parameter's value is wrong; the first mistake counts. The
// value is shown, so it must not be a secret.
func (p *Params) Fail(name, value, expected string) {
	p.fail(fmt.Errorf("parameter %s: expected %s, got %.100q", name, expected, value))
}

func (p *Params) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *Params) get(name string) (string, bool) {
	p.known = append(p.known, name)
	all := p.values[name]
	switch {
	case len(all) == 0:
		return "", false
	case len(all) > 1:
		p.fail(fmt.Errorf("parameter %s: expected once, got it %d times", name, len(all)))
		return "", false
	case all[0] == "":
		p.fail(fmt.Errorf("parameter %s: expected a value, got none", name))
		return "", false
	}
	return all[0], true
}

// Err returns the first mistake, or names a parameter that nobody asked for.
func (p *Params) Err() error {
	if p.err != nil {
		return p.err
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range p.values {
			if !slices.Contains(p.known, name) && !yield(name) {
				return
			}
		}
	})
	if len(names) == 0 {
		return nil
	}
	if len(p.known) == 0 {
		return fmt.Errorf("unknown parameter %.64q: expected none", names[0])
	}
	near := ""
	if best := suggest.Nearest(names[0], p.known); best != "" {
		near = " (did you mean " + best + "?)"
	}
	known := slices.Compact(slices.Sorted(slices.Values(p.known)))
	return fmt.Errorf("unknown parameter %.64q%s: expected %s", names[0], near, strings.Join(known, ", "))
}
