package scan

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// steady says whether the key of an open file names its content: nobody has the
// file open for writing, and the file system lets no later writer change it
// without changing its times. To be asked before the content is read.
func steady(f *os.File) bool {
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	if err := c.Control(func(fd uintptr) { ok = timed(int(fd)) && !written(fd) }); err != nil {
		return false
	}
	return ok
}

// timed reports whether stores to a shared mapping change the times of a file:
// they do where pages are written back, because a clean page reports its first
// store. In memory (tmpfs) a page that was read before does not, and what a
// server or a program says about its files is its own affair.
func timed(fd int) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false
	}
	switch int64(fs.Type) & 0xffffffff {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC,
		unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC,
		unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CODA_SUPER_MAGIC:
		return false
	}
	return true
}

// written reports whether anybody has the file open for writing, also by a
// mapping: then a read lease is refused (fcntl(2), F_SETLEASE). Whoever may not
// ask, a user scanning files of others, protects nothing with the answer.
func written(fd uintptr) bool {
	_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EACCES) {
		return false
	}
	if err != nil {
		return true
	}
	_, err = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
	return err != nil
}
