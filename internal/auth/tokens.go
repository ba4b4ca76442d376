// Package auth decides who may use the sidecar: it knows the tokens of a file,
// reads it again when it changes, and finds a token in what clients send. It
// does not know which paths need one, nor what is answered without.
package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of the file: it is read again and again.
const (
	maxFile   = 1 << 20
	maxTokens = 10_000
	minToken  = 16 // bytes: less can be guessed, which is warned about
)

// Tokens are the tokens of a file. A nil *Tokens is one that asks for none.
// Its methods are safe for concurrent use.
type Tokens struct {
	path    string
	current atomic.Pointer[set]
}

// set is one reading of the file. It holds hashes, so that tokens do not stay
// in memory and comparing takes the same time whatever they are.
type set struct {
	text   [sha256.Size]byte // of the file
	tokens []entry
	short  string // the name of one that is too short to be safe, "" without
}

type entry struct {
	name string
	hash [sha256.Size]byte
}

// Open reads a file of lines "name:token". Empty lines and those that begin
// with # mean nothing. Errors name the line.
func Open(path string) (*Tokens, error) {
	s, err := read(path)
	if err != nil {
		return nil, err
	}
	t := &Tokens{path: path}
	t.current.Store(s)
	return t, nil
}

func read(path string) (*set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	s, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return s, nil
}

// parse reads the text of a file. An error begins with the number of its line
// and never shows a token.
func parse(text []byte) (*set, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("1: the file is larger than %d bytes", maxFile)
	}
	s := &set{text: sha256.Sum256(text)}
	names, hashes := map[string]int{}, map[[sha256.Size]byte]int{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		name, token, ok := strings.Cut(text, ":")
		name, token = strings.TrimSpace(name), strings.TrimSpace(token)
		hash := sha256.Sum256([]byte(token))
		switch {
		case !ok || name == "":
			return nil, fmt.Errorf("%d: expected name:token", number)
		case !visible(token):
			return nil, fmt.Errorf("%d: the token of %.64q has a space or a character that no header can carry", number, name)
		case token == "":
			return nil, fmt.Errorf("%d: %.64q has no token", number, name)
		case names[name] > 0:
			return nil, fmt.Errorf("%d: the name %.64q stands in line %d already", number, name, names[name])
		case hashes[hash] > 0:
			return nil, fmt.Errorf("%d: the token of %.64q stands in line %d already", number, name, hashes[hash])
		case len(s.tokens) == maxTokens:
			return nil, fmt.Errorf("%d: more than %d tokens", number, maxTokens)
		}
		if len(token) < minToken && s.short == "" {
			s.short = name
		}
		names[name], hashes[hash] = number, number
		s.tokens = append(s.tokens, entry{name, hash})
	}
	if len(s.tokens) == 0 {
		return nil, fmt.Errorf("%d: there is no token in the file: nobody could use the sidecar", max(number, 1))
	}
	return s, nil
}

// visible reports whether all of s can stand in a header (RFC 6750 allows less).
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// Check returns the name that the token stands for. How long it takes tells
// nothing of the tokens.
func (t *Tokens) Check(token string) (name string, ok bool) {
	if token == "" {
		return "", false
	}
	hash := sha256.Sum256([]byte(token))
	tokens := t.current.Load().tokens
	for i := range tokens {
		e := &tokens[i]
		if subtle.ConstantTimeCompare(hash[:], e.hash[:]) == 1 {
			name, ok = e.name, true
		}
	}
	return name, ok
}

// reloadInterval is how late a change of the file may be noticed.
const reloadInterval = 2 * time.Second

// Watch reads the file again when it changes, until ctx ends. One that cannot
// be used changes nothing; the log says why, once a change.
func (t *Tokens) Watch(ctx context.Context, log *slog.Logger) {
	if t.readableByOthers() {
		log.Warn("the token file can be read by others; chmod 600 it", "file", t.path)
	}
	if name := t.current.Load().short; name != "" {
		log.Warn("a token is so short that it can be guessed", "file", t.path, "name", name, "shorter_than", minToken)
	}
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := t.Reload(); {
		case err != nil && err.Error() != told:
			told = err.Error()
			log.Error("the token file cannot be used; the tokens from before stay", "error", err)
		case err == nil:
			told = ""
			if changed {
				log.Info("tokens read again", "file", t.path, "tokens", len(t.current.Load().tokens))
			}
		}
	}
}

// Reload reads the file and reports whether it has changed.
func (t *Tokens) Reload() (changed bool, err error) {
	s, err := read(t.path)
	if err != nil {
		return false, err
	}
	if s.text == t.current.Load().text {
		return false, nil
	}
	t.current.Store(s)
	return true, nil
}

// readableByOthers reports whether everybody on the machine may read the file.
func (t *Tokens) readableByOthers() bool {
	info, err := os.Stat(t.path)
	return err == nil && info.Mode().Perm()&0o004 != 0 && os.PathSeparator == '/'
}

// First returns the first token of a file for a client: of lines "name:token",
// or of one that holds nothing but a token.
func First(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(text) {
		token := strings.TrimSpace(string(line))
		if token == "" || token[0] == '#' {
			continue
		}
		if _, after, ok := strings.Cut(token, ":"); ok {
			token = strings.TrimSpace(after)
		}
		if token == "" || !visible(token) {
			return "", fmt.Errorf("%s: expected a token, or name:token", path)
		}
		return token, nil
	}
	return "", errors.New(path + ": there is no token in the file")
}
