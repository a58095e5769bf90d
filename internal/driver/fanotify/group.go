// Package fanotify turns the kernel's permission events into event.File: a
// process that opens or executes a file of a protected file system waits in
// the kernel until the driver has answered. It answers every event on every
// path, within a deadline, and asks the kernel to remember clean files.
//
// Formats and behaviour: fanotify(7), fanotify_init(2), fanotify_mark(2) and
// include/uapi/linux/fanotify.h.
package fanotify

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// GroupConfig says how a group is opened.
type GroupConfig struct {
	// BoundedQueue keeps the kernel's own limit of queued events
	// (fs.fanotify.max_queued_events); beyond it events are lost and Overflow
	// is called. Waiting opens are then allowed by the kernel, so the default
	// is an unlimited queue.
	BoundedQueue bool
}

// Features are the optional abilities a group was opened with.
type Features struct {
	PIDFD   bool // events carry a pidfd (Linux 5.15)
	FDError bool // events whose descriptor could not be made are reported (6.13)
}

// Group is a fanotify group of class CONTENT. Its descriptor does not block and
// is kept out of Go's poller, which would wake for every event.
type Group struct {
	fd     int
	file   *os.File
	closed atomic.Bool
}

// eventFlags are those of the descriptors in events. O_NONBLOCK keeps the
// kernel from waiting for the other end of a FIFO on our behalf; O_NOATIME
// keeps the access time as evidence.
const eventFlags = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOATIME

// Open creates a group with what this kernel offers. It needs CAP_SYS_ADMIN.
// The caller closes the group; closing the last copy of its descriptor lets
// all waiting opens proceed and removes all marks.
func Open(cfg GroupConfig) (*Group, Features, error) {
	base := uint(unix.FAN_CLASS_CONTENT | unix.FAN_CLOEXEC | unix.FAN_UNLIMITED_MARKS)
	if !cfg.BoundedQueue {
		base |= unix.FAN_UNLIMITED_QUEUE
	}
	var first error
	for _, f := range []Features{{true, true}, {true, false}, {false, true}, {false, false}} {
		flags := base
		if f.PIDFD {
			flags |= unix.FAN_REPORT_PIDFD
		}
		if f.FDError {
			flags |= unix.FAN_REPORT_FD_ERROR
		}
		fd, err := unix.FanotifyInit(flags, eventFlags)
		if err == nil {
			g, err := newGroup(fd)
			return g, f, err
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, unix.EINVAL) {
			return nil, Features{}, fmt.Errorf("creating a fanotify group: %w", err)
		}
	}
	return nil, Features{}, fmt.Errorf("creating a fanotify group with permission events: %w", first)
}

func newGroup(fd int) (*Group, error) {
	// The file is made while the descriptor still blocks, so that Go leaves it
	// out of its poller.
	g := &Group{fd: fd, file: os.NewFile(uintptr(fd), "fanotify")}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("configuring the fanotify group: %w", err), g.Close())
	}
	return g, nil
}

// Inherit wraps the descriptor of a group that another process opened with
// Open. The caller closes the group.
func Inherit(fd int) (*Group, error) {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("reading inherited descriptor %d: %w", fd, err)
	}
	if link != "anon_inode:[fanotify]" {
		return nil, fmt.Errorf("inheriting descriptor %d: it is %q, not a fanotify group", fd, link)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("configuring inherited descriptor %d: %w", fd, err)
	}
	return &Group{fd: fd}, nil
}

// FD returns the descriptor; it stays the group's.
func (g *Group) FD() int { return g.fd }

// File returns the descriptor as a file to pass to a child process, nil for an
// inherited group. It must not be closed by the caller.
func (g *Group) File() *os.File { return g.file }

// Close closes this process's copy of the group. It may be called twice.
func (g *Group) Close() error {
	if g.closed.Swap(true) {
		return nil
	}
	var err error
	if g.file != nil {
		err = g.file.Close()
	} else {
		err = unix.Close(g.fd)
	}
	if err != nil {
		return fmt.Errorf("closing the fanotify group: %w", err)
	}
	return nil
}

// Respond answers the permission event whose descriptor has (or had, in a
// process that is gone) the number fd. It returns unix.ENOENT when no such
// event waits.
func (g *Group) Respond(fd int32, allow bool) error {
	var b [responseLen]byte
	putResponse(&b, fd, allow)
	for {
		_, err := unix.Write(g.fd, b[:])
		if err != unix.EINTR {
			return err
		}
	}
}
