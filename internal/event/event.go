// Package event defines what drivers report: something happened to a file or a
// process of a workload. Drivers produce events, the node answers them.
package event

import (
	"os"
	"time"
)

// Op is the operation that raised a file event.
type Op string

// The operations.
const (
	Open  Op = "open"  // a file is about to be opened; the opener waits
	Exec  Op = "exec"  // a file is about to be executed; the opener waits
	Write Op = "write" // a file that was open for writing was closed; nobody waits
)

// FileKey names a version of a backing inode. Any change of content changes
// the change time, which user space cannot set.
type FileKey struct {
	Dev   uint64 // st_dev of the backing file system
	Ino   uint64
	CTime int64 // nanoseconds
	MTime int64 // nanoseconds
	Size  int64
}

// File is an access to a regular file of a protected file system. Its
// descriptors belong to the driver, which closes them when the handler returns.
type File struct {
	Op    Op
	PID   int      // thread group id of the process, in the host's pid namespace
	PIDFD int      // descriptor of that process, -1 if there is none
	File  *os.File // opened read-only by the kernel; read it with ReadAt, never reopen it
	Key   FileKey
	// Unstable says that somebody has the file open for writing: its content
	// may change while Key stays the same (a store to a shared mapping), so a
	// verdict must not be kept under Key.
	Unstable bool
	Mode     uint32 // st_mode
	Path     string // the descriptor's path; relative to the layer for container files
	Time     time.Time
}
