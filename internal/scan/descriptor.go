package scan

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dup makes a descriptor of the same open file that outlives the caller's.
func dup(f *os.File) (*os.File, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("duplicating descriptor: %w", err)
	}
	fd := -1
	var dupErr error
	err = c.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		return nil, fmt.Errorf("duplicating descriptor: %w", err)
	}
	if dupErr != nil {
		return nil, fmt.Errorf("duplicating descriptor: %w", dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
