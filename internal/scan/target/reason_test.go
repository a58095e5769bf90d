package target

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

func TestReasons(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.ENOENT, "There is no such file."},
		{&fs.PathError{Op: "open", Path: "/x", Err: unix.EACCES}, "Reading is not permitted."},
		{unix.EPERM, "Reading is not permitted."},
		{unix.ELOOP, "The file became a symbolic link, or there are too many of them."},
		{fmt.Errorf("reading directory: %w", &fs.PathError{Op: "readdir", Path: "/x", Err: unix.EIO}), "Reading is not possible: input/output error."},
		{errors.New("odd"), "Reading is not possible: odd."},
	} {
		r := unreadable(c.err)
		require.Equal(t, threat.ReasonUnreadable, r.Code)
		require.Equal(t, c.want, r.Text)
	}
	for mode, want := range map[uint32]string{
		unix.S_IFIFO: "a FIFO", unix.S_IFSOCK: "a socket", unix.S_IFBLK: "a device", unix.S_IFLNK: "a symbolic link",
		unix.S_IFDIR: "a directory", 0: "not a regular file",
	} {
		require.Equal(t, "This is "+want+"; it was not opened.", notRegular(mode).Text)
	}
}
