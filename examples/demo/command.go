package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/examples/internal/process"
)

// commandLimit bounds one command.
const commandLimit = 20 * time.Second

// command is something a user could type.
type command interface {
	fmt.Stringer // as it is typed
	run(ctx context.Context) (answer, error)
}

// answer is what a command printed, with its HTTP or exit status.
type answer struct {
	status int
	text   string
}

// check says what is wrong with an answer.
type check func(answer) error

// contains wants a status and all of these words; spaces in JSON do not count.
func contains(status int, words ...string) check {
	return func(a answer) error {
		if a.status != status {
			return fmt.Errorf("expected status %d", status)
		}
		var compact bytes.Buffer
		text := a.text
		if json.Compact(&compact, []byte(text)) == nil {
			text = compact.String()
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				return fmt.Errorf("expected %q in it", word)
			}
		}
		return nil
	}
}

// isJSON wants a status and a JSON value.
func isJSON(status int, want string) check {
	return func(a answer) error {
		var got, wanted any
		if json.Unmarshal([]byte(want), &wanted) != nil || json.Unmarshal([]byte(a.text), &got) != nil ||
			a.status != status || !reflect.DeepEqual(got, wanted) {
			return fmt.Errorf("expected status %d and %s", status, want)
		}
		return nil
	}
}

// cli is a line of the micro command.
type cli struct {
	name string
	args []string
}

func (c cli) String() string { return typed(c.name, c.args...) }

func (c cli) run(ctx context.Context) (answer, error) { return execute(ctx, c.name, c.args...) }

// execute runs a program to its end. A status other than 0 is an answer.
func execute(ctx context.Context, name string, args ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = process.Environ()
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return answer{exit.ExitCode(), strings.TrimSpace(string(out))}, nil
	}
	return answer{0, strings.TrimSpace(string(out))}, err
}

// curl is an HTTP request, typed as a line of curl.
type curl struct {
	method string
	url    string
	header []string // "Name: value"
	data   []string // joined by "&"
}

func get(url string) curl { return curl{method: http.MethodGet, url: url} }

func post(url string, data ...string) curl {
	return curl{method: http.MethodPost, url: url, data: data}
}

// with adds a header.
func (c curl) with(header string) curl { c.header = append(c.header, header); return c }

// by changes the method.
func (c curl) by(method string) curl { c.method = method; return c }

func (c curl) args() []string {
	var args []string
	if usual := c.method == http.MethodGet || c.method == http.MethodPost && len(c.data) > 0; !usual {
		args = append(args, "-X", c.method)
	}
	for _, h := range c.header {
		args = append(args, "-H", h)
	}
	for _, d := range c.data {
		args = append(args, "-d", d)
	}
	return append(args, c.url)
}

func (c curl) String() string { return typed("curl", c.args()...) }

// run uses curl itself where there is one.
func (c curl) run(ctx context.Context) (answer, error) {
	if _, err := exec.LookPath("curl"); err != nil {
		return c.viaHTTP(ctx)
	}
	got, err := execute(ctx, "curl", append([]string{"-sS", "-w", "\n%{http_code}"}, c.args()...)...)
	if err != nil || got.status != 0 {
		return got, err
	}
	cut := strings.LastIndexByte(got.text, '\n')
	status, err := strconv.Atoi(got.text[cut+1:])
	if err != nil {
		return answer{}, fmt.Errorf("curl gave no HTTP status: %w", err)
	}
	return answer{status, strings.TrimSpace(got.text[:max(cut, 0)])}, nil
}

// viaHTTP does without curl what curl would do.
func (c curl) viaHTTP(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.method, c.url, strings.NewReader(strings.Join(c.data, "&")))
	if err != nil {
		return answer{}, err
	}
	if len(c.data) > 0 {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range c.header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var why *url.Error
		if errors.As(err, &why) {
			err = why.Err
		}
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode, strings.TrimSpace(string(body))}, nil
}

// typed is a command line as it is typed into a shell.
func typed(name string, args ...string) string {
	plain := regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)
	words := []string{name}
	for _, arg := range args {
		if !plain.MatchString(arg) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
