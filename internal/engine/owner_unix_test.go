//go:build unix

package engine

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

// owned is a folder as another user's would look.
type owned struct {
	fs.FileInfo
	uid  uint32
	mode fs.FileMode
}

func (o owned) Sys() any          { return &syscall.Stat_t{Uid: o.uid} }
func (o owned) Mode() fs.FileMode { return fs.ModeDir | o.mode }

func TestOwner(t *testing.T) {
	me := uint32(os.Geteuid())
	for _, test := range []struct {
		folder owned
		says   string
	}{
		{owned{uid: me, mode: 0o700}, ""},
		{owned{uid: me, mode: 0o755}, ""},
		{owned{uid: me + 1, mode: 0o700}, "belongs to another user"},
		{owned{uid: me, mode: 0o777}, "can be written by other users"},
		{owned{uid: me, mode: 0o770}, "can be written by other users"},
	} {
		err := ours(test.folder)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("uid %d, mode %o: %v, want %q", test.folder.uid, test.folder.mode, err, test.says)
		}
	}
}
