package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// published is what a host tells the other processes of the same user: where
// it listens and how to log in. It stands in the file host.json, which only
// its user can read and which is replaced as a whole.
type published struct {
	// Format is the version of the store and of this file.
	Format int `json:"format"`
	// Version is the host's version, for people.
	Version string `json:"version"`
	// Address is the listener's "host:port".
	Address string `json:"address"`
	// PID is the host's process, for people.
	PID int `json:"pid"`
	// Token is the password of both users, a fresh one for every start.
	Token string `json:"token"`
}

// maxPublished bounds the file that a process reads, in bytes.
const maxPublished = 64 << 10

// parsePublished reads the file's content.
func parsePublished(data []byte) (published, error) {
	var p published
	if err := json.Unmarshal(data, &p); err != nil {
		// A newer format may have changed what any other field holds.
		var f struct {
			Format int `json:"format"`
		}
		if json.Unmarshal(data, &f) == nil && f.Format > format {
			return published{Format: f.Format}, nil
		}
		return published{}, fmt.Errorf("expected what a host publishes: %w", err)
	}
	if p.Format > format {
		return published{Format: p.Format}, nil
	}
	if p.Format < 1 {
		return published{}, fmt.Errorf("format: expected 1 to %d, got %d", format, p.Format)
	}
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil || host == "" || port == "" {
		return published{}, fmt.Errorf("address: expected host:port, got %q", p.Address)
	}
	if p.Token == "" {
		return published{}, errors.New("token: expected one, got none")
	}
	return p, nil
}

// readPublished returns what the host published; the error wraps
// [os.ErrNotExist] when no host has.
func readPublished(path string) (published, error) {
	f, err := os.Open(path)
	if err != nil {
		return published{}, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxPublished+1))
	if err != nil {
		return published{}, err
	}
	if len(data) > maxPublished {
		return published{}, fmt.Errorf("%s: expected at most %d bytes", path, maxPublished)
	}
	p, err := parsePublished(data)
	if err != nil {
		return published{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// write publishes p: readers see the old file or the new one, never a part.
func (p published) write(path string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// Not synced: after a power failure no process holds the lock, and then
	// nobody reads the file.
	return replaceFile(path, append(data, '\n'), false)
}

// replaceFile writes a file that only this user can read and puts it in the
// place of the one that is there; with durable it survives a power failure.
func replaceFile(path string, data []byte, durable bool) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if durable {
		err = errors.Join(err, tmp.Sync())
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// rename tries for a moment: Windows refuses while a reader has the old file open.
func rename(from, to string) error {
	const attempts, pause = 10, 5 * time.Millisecond
	for i := 1; ; i++ {
		err := os.Rename(from, to)
		if err == nil || i == attempts {
			return err
		}
		time.Sleep(pause)
	}
}
