package fanotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/event"
)

// node names an inode as the kernel does: s_dev (major<<20 | minor) and i_ino.
type node struct {
	dev uint32
	ino uint64
}

// handle is a file handle of name_to_handle_at(2), which finds the inode again
// without a path and goes stale with it.
type handle struct {
	kind int32
	data string
}

type offer struct {
	h     *held
	key   event.FileKey
	epoch uint64
}

// marks sets the kernel's ignore marks on clean inodes: the kernel then
// answers opens itself until the content changes. A change by write, truncate
// and the like clears a mark; stores to a shared mapping do not, so each marked
// inode is given to the Watcher first. Only OPEN_PERM is ever ignored: an
// execution is always seen.
type marks struct {
	d     *Driver
	epoch atomic.Uint64 // grows with ForgetAll; older decisions set no mark
	queue chan offer

	mu    sync.Mutex
	table map[node]handle
	order []node // oldest first; may name nodes that are gone
	// legacy is set when the kernel has no FAN_MARK_IGNORE (before 6.0) or no
	// evictable marks: IGNORED_MASK means the same for an inode, but pins it.
	legacy bool
}

func newMarks(d *Driver) *marks {
	return &marks{d: d, queue: make(chan offer, min(256, max(d.cfg.Inflight/4, 4))), table: map[node]handle{}}
}

// settled reports whether a file is old enough to be remembered.
func (m *marks) settled(key event.FileKey) bool {
	return time.Since(time.Unix(0, key.CTime)) >= m.d.cfg.Settle
}

// offer takes over a clean file's event and marks its inode later, if it is
// worth it. It never blocks.
func (m *marks) offer(h *held, key event.FileKey, epoch uint64) {
	if m.settled(key) {
		select {
		case m.queue <- offer{h, key, epoch}:
			return
		default:
			m.d.count.skipped.Add(1)
		}
	}
	h.close()
}

// run sets marks, one at a time, away from anybody who waits.
func (m *marks) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-m.queue:
			if err := m.set(o); err != nil {
				m.d.count.skipped.Add(1)
				m.d.cfg.Logger.Debug("file not remembered", slog.Any("error", err))
			}
			o.h.close()
		}
	}
}

// drain closes what is left in the queue; nobody offers or runs any more.
func (m *marks) drain() {
	for {
		select {
		case o := <-m.queue:
			o.h.close()
		default:
			return
		}
	}
}

// errChanged says that a file may not be remembered because it is in motion.
var errChanged = errors.New("file changed or is open for writing")

// set marks one inode. The order closes every gap: dirty pages are written
// back first, because only a clean page reports its next store; the watch
// comes before the mark; and the key is compared after the mark, so that any
// change since the inspection is found.
func (m *marks) set(o offer) error {
	fd := int(o.h.FD)
	fs, err := m.d.fs.find(fd, o.key.Dev)
	if err != nil {
		return err
	}
	if openForWriting(fd) {
		return errChanged
	}
	if err := unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER); err != nil {
		return fmt.Errorf("writing back: %w", err)
	}
	fh, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("taking a file handle: %w", err)
	}
	n := node{fs.kdev, o.key.Ino}

	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch.Load() != o.epoch || !same(fd, o.key) {
		return errChanged
	}
	if err := m.register(n, handle{fh.Type(), string(fh.Bytes())}); err != nil {
		return err
	}
	if err := m.add(fd); err != nil {
		m.drop(n)
		return fmt.Errorf("marking: %w", err)
	}
	if !same(fd, o.key) {
		m.drop(n)
		return errChanged
	}
	m.d.count.marked.Add(1)
	return nil
}

// register makes room for n in the table and asks the watcher to watch it.
func (m *marks) register(n node, h handle) error {
	if old, ok := m.table[n]; ok && old != h {
		// The number was reused, or two subvolumes share it: one may stay.
		m.drop(n)
	}
	_, known := m.table[n]
	for !known && len(m.order) > 0 && (len(m.table) >= m.d.cfg.Remembered || len(m.order) >= 2*m.d.cfg.Remembered) {
		oldest := m.order[0]
		m.order = m.order[1:]
		m.drop(oldest)
	}
	if m.d.cfg.Watcher != nil {
		if err := m.d.cfg.Watcher.Watch(n.dev, n.ino); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	if !known {
		m.order = append(m.order, n)
	}
	m.table[n] = h
	return nil
}

// add puts the ignore mark on the inode behind fd. The kernel silently sets
// none when somebody has the file open for writing.
func (m *marks) add(fd int) error {
	if !m.legacy {
		err := unix.FanotifyMark(m.d.cfg.Group.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE|unix.FAN_MARK_EVICTABLE, unix.FAN_OPEN_PERM, fd, "")
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
		m.legacy = true
	}
	return unix.FanotifyMark(m.d.cfg.Group.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK, unix.FAN_OPEN_PERM, fd, "")
}

// drop removes a node's mark, watch and entry. When the inode cannot be
// reached to remove its mark, all marks are removed: a stale one would hide a
// changed file.
func (m *marks) drop(n node) {
	h, ok := m.table[n]
	if !ok {
		return
	}
	delete(m.table, n)
	if m.d.cfg.Watcher != nil {
		_ = m.d.cfg.Watcher.Unwatch(n.dev, n.ino) // a left-over watch only costs a look-up
	}
	if err := m.unmark(n, h); err != nil {
		m.flush()
	}
}

func (m *marks) unmark(n node, h handle) error {
	root, err := m.d.fs.open(n.dev)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	fd, err := unix.OpenByHandleAt(int(root.Fd()), unix.NewFileHandle(h.kind, []byte(h.data)), unix.O_PATH|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) {
		return nil // the inode is gone, and its mark with it
	}
	if err != nil {
		return fmt.Errorf("opening by handle: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	flags := uint(unix.FAN_MARK_REMOVE | unix.FAN_MARK_IGNORE)
	if m.legacy {
		flags = unix.FAN_MARK_REMOVE | unix.FAN_MARK_IGNORED_MASK
	}
	err = unix.FanotifyMark(m.d.cfg.Group.fd, flags, unix.FAN_OPEN_PERM, unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing the mark: %w", err)
	}
	return nil
}

func (m *marks) flush() {
	if err := unix.FanotifyMark(m.d.cfg.Group.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, ""); err != nil {
		m.d.cfg.Logger.Error("removing all marks", slog.Any("error", err))
	}
	if m.d.cfg.Watcher != nil {
		for n := range m.table {
			_ = m.d.cfg.Watcher.Unwatch(n.dev, n.ino)
		}
	}
	clear(m.table)
	m.order = nil
}

// Changed removes the mark of an inode whose content may have changed; the
// Watcher calls it.
func (d *Driver) Changed(dev uint32, ino uint64) {
	d.count.dirtied.Add(1)
	d.marks.mu.Lock()
	defer d.marks.mu.Unlock()
	d.marks.drop(node{dev, ino})
}

// ForgetAll removes all marks, also those of decisions under way: the answer
// to new signatures and to lost reports of the Watcher.
func (d *Driver) ForgetAll() {
	d.marks.epoch.Add(1)
	d.marks.mu.Lock()
	defer d.marks.mu.Unlock()
	d.marks.flush()
}

// same reports whether the file is still the version that key names.
func same(fd int, key event.FileKey) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && keyOf(&st) == key
}
