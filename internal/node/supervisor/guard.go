package supervisor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/driver/fanotify"
)

// guard answers accesses while no service does.
type guard struct {
	group   *fanotify.Group
	wake    int
	session atomic.Int64 // session of the service that is starting, 0 if none

	mu   sync.Mutex
	mode Mode
	done chan struct{} // closed when the reader has ended; nil: not reading

	gap struct{ allowed, denied, writes atomic.Uint64 }
}

func newGuard(g *fanotify.Group, mode Mode) (*guard, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("creating the guard: %w", err)
	}
	return &guard{group: g, wake: wake, mode: mode}, nil
}

func (g *guard) close() error {
	g.finish()
	return unix.Close(g.wake)
}

func (g *guard) setMode(m Mode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mode = m
}

func (g *guard) running() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done != nil
}

// begin starts reading, after the mode's hold: until then accesses wait in the
// kernel's queue, where the next service finds them.
func (g *guard) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done != nil {
		return
	}
	var drained [8]byte
	_, _ = unix.Read(g.wake, drained[:])
	g.done = make(chan struct{})
	go g.read(g.mode, time.Now().Add(g.mode.Hold), g.done)
}

// finish stops reading; everything that was read has been answered. It returns
// and resets the counters.
func (g *guard) finish() Gap {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done != nil {
		var one = [8]byte{1}
		_, _ = unix.Write(g.wake, one[:])
		<-g.done
		g.done = nil
	}
	return Gap{g.gap.allowed.Swap(0), g.gap.denied.Swap(0), g.gap.writes.Swap(0)}
}

// read answers events until it is woken. It opens nothing, takes no lock and
// logs nothing.
func (g *guard) read(mode Mode, from time.Time, done chan<- struct{}) {
	runtime.LockOSThread()
	defer close(done)
	defer runtime.UnlockOSThread()
	buf := make([]byte, 16*64)
	self := os.Getpid()
	for {
		fds := []unix.PollFd{{Fd: int32(g.wake), Events: unix.POLLIN}, {Fd: int32(g.group.FD()), Events: unix.POLLIN}}
		timeout := -1
		if left := time.Until(from); left > 0 {
			fds, timeout = fds[:1], int(left.Milliseconds())+1
		}
		if _, err := unix.Poll(fds, timeout); err != nil && err != unix.EINTR {
			return // only a broken descriptor or no memory: the group is lost
		}
		if fds[0].Revents != 0 {
			return
		}
		if len(fds) == 1 || fds[1].Revents == 0 {
			continue
		}
		n, err := unix.Read(g.group.FD(), buf)
		if err != nil {
			continue // an event whose file could not be opened was denied by the kernel
		}
		for b := buf[:n]; len(b) > 0; {
			var e fanotify.Event
			if e, b, err = fanotify.Parse(b); err != nil {
				break
			}
			g.answer(e, mode, self)
		}
	}
}

func (g *guard) answer(e fanotify.Event, mode Mode, self int) {
	defer e.Close()
	switch {
	case e.FD < 0:
	case !e.Permission():
		g.gap.writes.Add(1)
	case int(e.PID) == self || g.member(int(e.PID)):
		_ = g.group.Respond(e.FD, true)
	default:
		g.count(mode)
		_ = g.group.Respond(e.FD, !mode.Closed)
	}
}

// member reports whether a process belongs to the service: the service leads a
// session of its own, which others cannot join (setsid(2)).
func (g *guard) member(pid int) bool {
	session := g.session.Load()
	if session == 0 || pid == 0 {
		return false
	}
	sid, err := unix.Getsid(pid)
	return err == nil && int64(sid) == session
}

func (g *guard) count(mode Mode) {
	if mode.Closed {
		g.gap.denied.Add(1)
	} else {
		g.gap.allowed.Add(1)
	}
}

// abandoned answers the accesses that a dead service had read: the kernel finds
// a waiting access by the number that its descriptor had in that process, so
// all possible numbers are tried. The service's process must be reaped and the
// guard not reading. It also removes the marks of remembered files: their
// watches died with the service.
func (g *guard) abandoned(files uint64) int {
	g.forget()
	g.mu.Lock()
	mode := g.mode
	g.mu.Unlock()
	n := 0
	for fd := range int32(min(files, 1<<20)) {
		for g.group.Respond(fd, !mode.Closed) == nil { // one number may wait twice
			g.count(mode)
			n++
		}
	}
	return n
}

func (g *guard) forget() {
	_ = unix.FanotifyMark(g.group.FD(), unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "")
}

// unmark removes every mark.
func (g *guard) unmark() {
	g.forget()
	for _, kind := range []uint{unix.FAN_MARK_FILESYSTEM, unix.FAN_MARK_MOUNT} {
		_ = unix.FanotifyMark(g.group.FD(), unix.FAN_MARK_FLUSH|kind, 0, unix.AT_FDCWD, "")
	}
}

// exempt keeps the start of the program at path from waiting for the guard: an
// ignore mark that survives changes, for our own program only.
func (g *guard) exempt(path string) error {
	const mask = unix.FAN_OPEN_PERM | unix.FAN_OPEN_EXEC_PERM
	err := unix.FanotifyMark(g.group.FD(), unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE_SURV, mask, unix.AT_FDCWD, path)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.0
		err = unix.FanotifyMark(g.group.FD(), unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK|unix.FAN_MARK_IGNORED_SURV_MODIFY, mask, unix.AT_FDCWD, path)
	}
	if err != nil {
		return fmt.Errorf("exempting %s: %w", path, err)
	}
	return nil
}
