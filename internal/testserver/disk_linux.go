package testserver

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// SmallDisk is a file system of its own, in memory, that can really be full.
type SmallDisk struct {
	// Path is where it is mounted.
	Path string

	t testing.TB
}

// Disk mounts a disk of so many bytes; it goes with the test. Mounting takes
// root: without it the test is skipped, or failed where CI is set.
func Disk(t testing.TB, size int64) *SmallDisk {
	t.Helper()
	d := &SmallDisk{Path: filepath.Join(t.TempDir(), "disk"), t: t}
	if err := os.Mkdir(d.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("none", d.Path, "tmpfs", 0, "mode=0700,size="+strconv.FormatInt(size, 10))
	switch {
	case err == nil:
	case errors.Is(err, os.ErrPermission) && os.Getenv("CI") == "":
		t.Skip("a small disk has to be mounted, which takes root")
	default:
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.Path, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.Path, err)
		}
	})
	return d
}

// Fill takes all that is free, to the last byte, until Empty.
func (d *SmallDisk) Fill() {
	d.t.Helper()
	f, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("fill a small disk: %v", err)
	}
}

// Empty gives back what Fill took.
func (d *SmallDisk) Empty() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *SmallDisk) filler() string { return filepath.Join(d.Path, "filler") }
