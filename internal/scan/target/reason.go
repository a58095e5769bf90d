package target

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

func unreadable(err error) *threat.Reason {
	var text string
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = "There is no such file."
	case errors.Is(err, fs.ErrPermission):
		text = "Reading is not permitted."
	case errors.Is(err, unix.ELOOP):
		text = "The file became a symbolic link, or there are too many of them."
	default:
		text = fmt.Sprintf("Reading is not possible: %v.", cause(err))
	}
	return &threat.Reason{Code: threat.ReasonUnreadable, Text: text}
}

// cause leaves out the path, which the line shows already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func notRegular(mode uint32) *threat.Reason {
	what := "This is not a regular file"
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		what = "This is a FIFO"
	case unix.S_IFSOCK:
		what = "This is a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		what = "This is a device"
	case unix.S_IFLNK:
		what = "This is a symbolic link"
	case unix.S_IFDIR:
		what = "This is a directory"
	}
	return &threat.Reason{Code: threat.ReasonNotRegular, Text: what + "; it was not opened."}
}

// Magic numbers that golang.org/x/sys/unix lacks, from the kernel's
// include/uapi/linux/magic.h and fs/*.
const (
	magicConfigfs = 0x62656570
	magicMqueue   = 0x19800202
	magicFusectl  = 0x65735543
)

// kernelFileSystem says why a directory is not walked: its file system holds
// no stored content, and reading its files may wait for ever or have effects.
func kernelFileSystem(fd int) *threat.Reason {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return nil // the walk itself will tell
	}
	switch int64(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.BINFMTFS_MAGIC,
		unix.NSFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC, magicConfigfs, magicMqueue, magicFusectl:
		return &threat.Reason{
			Code: threat.ReasonNotRegular,
			Text: "This is a file system of the kernel without stored files; it was not read.",
		}
	}
	return nil
}
