package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// format is the version of the store, and of what a host publishes, that this
// program writes; it reads older ones.
const format = 1

// folder is the engine's part of the data directory: files that only its
// owner can read, and the store.
type folder struct{ path string }

func (f folder) lock() string   { return filepath.Join(f.path, "lock") }
func (f folder) host() string   { return filepath.Join(f.path, "host.json") }
func (f folder) store() string  { return filepath.Join(f.path, "store") }
func (f folder) format() string { return filepath.Join(f.path, "store", "format") }

// openFolder checks the folder, and with create makes what is missing.
// Without create the error wraps [ErrNoHost] when there is none.
func openFolder(dataDir string, create bool) (folder, error) {
	if !filepath.IsAbs(dataDir) {
		return folder{}, fmt.Errorf("data directory %q: expected an absolute path", dataDir)
	}
	f := folder{filepath.Join(dataDir, "engine")}
	if create {
		if err := os.MkdirAll(f.path, 0o700); err != nil {
			return folder{}, unusable(dataDir, err)
		}
	}
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return folder{}, noHost(dataDir)
	case err != nil:
		return folder{}, unusable(dataDir, err)
	case !info.IsDir():
		return folder{}, unusable(dataDir, fmt.Errorf("%s is not a directory", f.path))
	}
	// Whoever owns the folder decides which engine we trust with our messages.
	if err := ours(info); err != nil {
		return folder{}, unusable(dataDir, fmt.Errorf("%s %w", f.path, err))
	}
	if create && info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(f.path, 0o700); err != nil {
			return folder{}, unusable(dataDir, err)
		}
	}
	return f, nil
}

func unusable(dataDir string, err error) error {
	return fmt.Errorf("the data directory %s is not usable by this user: %w", dataDir, err)
}

func noHost(dataDir string) error {
	return fmt.Errorf("%w with the data directory %s", ErrNoHost, dataDir)
}

// held reports whether some process holds the lock, this one included.
// Looking takes a shared lock for an instant; a process that wants the lock
// just then fails once and tries again.
func (f folder) held() (bool, error) {
	if _, err := os.Stat(f.lock()); errors.Is(err, fs.ErrNotExist) {
		return false, nil // looking must not create it
	}
	probe := flock.New(f.lock())
	free, err := probe.TryRLock()
	if err != nil {
		return false, fmt.Errorf("look at the engine's lock: %w", err)
	}
	if err := probe.Close(); err != nil {
		return false, fmt.Errorf("look at the engine's lock: %w", err)
	}
	return !free, nil
}

// patience is how long a process that only joins waits for a host when there
// is none: one that was killed leaves its file, and another takes over soon;
// one that stopped may be handing over.
func (f folder) patience() time.Duration {
	if _, err := os.Stat(f.host()); err == nil {
		return time.Second
	}
	return 200 * time.Millisecond
}

// claimStore makes the store if there is none and refuses a newer one. The
// caller holds the lock.
func (f folder) claimStore() error {
	data, err := os.ReadFile(f.format())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(f.store(), 0o700); err != nil {
			return fmt.Errorf("make the store: %w", err)
		}
		if err := replaceFile(f.format(), fmt.Appendln(nil, format), true); err != nil {
			return fmt.Errorf("mark the store's format: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("read the store's format: %w", err)
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(data[:min(len(data), 32)])))
	if err != nil || have < 1 {
		return fmt.Errorf("%s: expected the number of the store's format, got %.32q", f.format(), data)
	}
	if have > format {
		return newer(f.store(), have)
	}
	return nil
}

func newer(path string, have int) error {
	return fmt.Errorf("the store in %s was written by %w (format %d, this one knows %d)", path, ErrNewer, have, format)
}
