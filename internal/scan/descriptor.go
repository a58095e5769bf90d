package scan

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dup makes a read-only descriptor that outlives the caller's. Engine workers
// take no other: one may have been taken over by what it reads. A writable
// descriptor, as of a temporary copy, is opened again through /proc, which works
// for files without a name too.
func dup(f *os.File) (*os.File, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("duplicating descriptor: %w", err)
	}
	fd := -1
	var dupErr error
	err = c.Control(func(old uintptr) {
		var flags int
		if flags, dupErr = unix.FcntlInt(old, unix.F_GETFL, 0); dupErr != nil {
			return
		}
		if flags&unix.O_ACCMODE == unix.O_RDONLY {
			fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
			return
		}
		fd, dupErr = unix.Open(fmt.Sprintf("/proc/self/fd/%d", old), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("duplicating descriptor: %w", err)
	}
	if dupErr != nil {
		return nil, fmt.Errorf("duplicating descriptor: %w", dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
