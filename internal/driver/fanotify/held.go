package fanotify

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/event"
)

// held is an event whose descriptors are still open.
type held struct {
	Event
	file *os.File // owns FD, nil if FD is still bare
}

// hold moves the event's descriptor into a file for handlers.
func hold(e Event) *held {
	return &held{Event: e, file: os.NewFile(uintptr(e.FD), "event")}
}

func (h *held) close() {
	if h.file != nil {
		_ = h.file.Close()
		h.FD = -1
	}
	h.Close()
}

// event describes h for handlers. It asks for the path by the descriptor's
// link, which opens nothing.
func (h *held) event(key event.FileKey, mode uint32) *event.File {
	ev := &event.File{
		Op:       event.Open,
		PID:      int(h.PID),
		PIDFD:    int(max(h.PIDFD, -1)),
		File:     h.file,
		Key:      key,
		Mode:     mode,
		Unstable: openForWriting(int(h.FD)),
		Time:     time.Now(),
	}
	switch {
	case h.Mask&unix.FAN_OPEN_EXEC_PERM != 0:
		ev.Op = event.Exec
	case h.Mask&unix.FAN_CLOSE_WRITE != 0:
		ev.Op = event.Write
	}
	// An unreadable link leaves the path empty; the descriptor is what counts.
	ev.Path, _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(h.FD)))
	return ev
}

// openForWriting reports whether anybody may have the file open for writing,
// also by a shared mapping: the kernel grants a read lease only if nobody has
// (fcntl(2), F_SETLEASE). The lease is given back at once. When the file system
// has no leases the answer is yes: what cannot be known is not stable.
func openForWriting(fd int) bool {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return true
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err != nil
}
