package fanotify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/event"
)

// batch is the most events one read takes: each opens up to two descriptors,
// so the read buffer is a budget of descriptors too.
const batch = 64

// read is the only reader of the group. It never opens a file, takes no lock
// that a handler holds, and hands undecided accesses to goroutines: an open by
// this process must always find it ready to answer. It is not locked to a
// thread: yielding after a batch lets the decisions begin on the processor that
// is awake, which halves the wait of an opener (measured).
func (d *Driver) read(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		var one = [8]byte{1}
		_, _ = unix.Write(d.wake, one[:])
	})
	defer stop()
	defer d.settle()

	buf := make([]byte, min(batch, max(d.cfg.Inflight, 1))*eventLen)
	fds := []unix.PollFd{{Fd: int32(d.cfg.Group.fd), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		d.beat.Store(time.Now().UnixNano())
		if n, err := unix.Poll(fds, 1000); err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting for fanotify events: %w", err)
		} else if n <= 0 || fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(d.cfg.Group.fd, buf)
		if err := d.readError(err); err != nil {
			return err
		}
		for b := buf[:max(n, 0)]; len(b) > 0; {
			var e Event
			if e, b, err = Parse(b); err != nil {
				return err // whoever takes over the group answers what is left
			}
			d.dispatch(ctx, e)
		}
		if d.handed {
			d.handed = false
			runtime.Gosched()
		}
	}
	return d.finish(buf)
}

// finish answers what waits in the kernel's queue when the driver ends on
// purpose, by the fail mode; a flood ends it after a second.
func (d *Driver) finish(buf []byte) error {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		n, err := unix.Read(d.cfg.Group.fd, buf)
		if err != nil || n <= 0 {
			return d.readError(err)
		}
		for b := buf[:n]; len(b) > 0; {
			var e Event
			if e, b, err = Parse(b); err != nil {
				return err
			}
			if e.FD >= 0 && e.Permission() {
				d.count.events.Add(1)
				d.conclude(e, d.own(e.PID) || !d.closed.Load())
				continue
			}
			e.Close()
		}
	}
	return nil
}

// settle waits for the decisions under way. They have been answered when ctx
// ended; a handler that does not return is left behind.
func (d *Driver) settle() {
	done := make(chan struct{})
	go func() { d.busy.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(d.cfg.Deadline + time.Second):
	}
}

// readError sorts the errors of reading a group. Without FD_ERROR the kernel
// reports here that it could not open an event's file (and denied the access).
func (d *Driver) readError(err error) error {
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EFAULT):
		return fmt.Errorf("reading fanotify events: %w", err)
	}
	d.count.fdErrors.Add(1)
	return nil
}

func (d *Driver) dispatch(ctx context.Context, e Event) {
	switch {
	case e.Mask&unix.FAN_Q_OVERFLOW != 0:
		e.Close()
		d.count.overflows.Add(1)
		d.lose()
	case e.FD < 0: // the kernel has denied it already
		e.Close()
		d.count.fdErrors.Add(1)
	case e.Permission():
		d.count.events.Add(1)
		d.access(ctx, e)
	case e.Mask&unix.FAN_CLOSE_WRITE != 0:
		d.count.writes.Add(1)
		d.enqueue(e)
	default:
		e.Close()
	}
}

// access answers what needs no decision at once and hands on the rest.
func (d *Driver) access(ctx context.Context, e Event) {
	if d.own(e.PID) {
		d.count.own.Add(1)
		d.conclude(e, true)
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(e.FD), &st); err != nil {
		d.count.fdErrors.Add(1)
		d.conclude(e, !d.closed.Load())
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		d.count.trivial.Add(1)
		d.conclude(e, true)
		return
	}
	key, epoch := keyOf(&st), d.marks.epoch.Load()
	if d.cfg.Clean != nil && d.cfg.Clean(key) {
		d.count.known.Add(1)
		d.count.allowed.Add(1)
		d.respond(e.FD, true)
		if d.marks.settled(key) {
			d.marks.offer(&held{Event: e}, key, epoch)
		} else {
			e.Close()
		}
		return
	}
	if !d.acquire(ctx) {
		d.count.saturated.Add(1)
		d.conclude(e, !d.closed.Load())
		return
	}
	d.busy.Add(1)
	d.handed = true
	go d.decide(ctx, e, key, st.Mode, epoch)
}

func (d *Driver) own(pid int32) bool {
	return int(pid) == d.self || (d.cfg.Own != nil && d.cfg.Own(int(pid)))
}

// acquire takes a place. When all are taken it stops reading, which leaves the
// events in the kernel's queue. If none comes free for a while the handlers
// hang, or wait for files that only this reader can let them open: then it goes
// on without waiting until one does.
func (d *Driver) acquire(ctx context.Context) bool {
	select {
	case d.places <- struct{}{}:
		d.stuck = false
		return true
	default:
	}
	if d.stuck {
		return false
	}
	t := time.NewTimer(d.cfg.Deadline / 8)
	defer t.Stop()
	select {
	case d.places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	d.stuck = true
	return false
}

// conclude answers an event and closes its descriptors.
func (d *Driver) conclude(e Event, allow bool) {
	if allow {
		d.count.allowed.Add(1)
	} else {
		d.count.denied.Add(1)
	}
	d.respond(e.FD, allow)
	e.Close()
}

// respond writes an answer. ENOENT means that the opener was killed meanwhile.
func (d *Driver) respond(fd int32, allow bool) {
	if err := d.cfg.Group.Respond(fd, allow); err != nil && !errors.Is(err, unix.ENOENT) {
		d.count.responseErrors.Add(1)
	}
}

func keyOf(st *unix.Stat_t) event.FileKey {
	return event.FileKey{Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size}
}
