package scan

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/event"
)

// KeyOf names the version of the inode that a descriptor refers to.
func KeyOf(f *os.File) (event.FileKey, error) {
	var st unix.Stat_t
	c, err := f.SyscallConn()
	if err != nil {
		return event.FileKey{}, fmt.Errorf("reading file status: %w", err)
	}
	var statErr error
	if err := c.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return event.FileKey{}, fmt.Errorf("reading file status: %w", err)
	}
	if statErr != nil {
		return event.FileKey{}, fmt.Errorf("reading file status: %w", statErr)
	}
	return event.FileKey{
		Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size,
	}, nil
}

const (
	// tick is longer than the kernel's coarse clock (1/HZ, at most 10 ms).
	tick = 40 * time.Millisecond
	// coarse covers file systems that keep whole seconds (ext3) or two (FAT).
	coarse = 2 * time.Second
)

// settled says whether a later change of the file is sure to change its key: a
// second change inside one tick of the file system's clock would not. now is
// a time before the content was read.
func settled(k event.FileKey, now time.Time) bool {
	window := tick
	if k.CTime%int64(time.Second) == 0 {
		window += coarse
	}
	return k.CTime < now.Add(-window).UnixNano()
}
