//go:build unix

package engine

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ours returns an error unless the folder belongs to the user we run as and
// nobody else may write to it.
func ours(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("belongs to another user (uid %d, we are %d)", st.Uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("can be written by other users (mode %o)", info.Mode().Perm())
	}
	return nil
}
