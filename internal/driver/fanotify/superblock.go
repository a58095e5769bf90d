package fanotify

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/workload/mounts"
)

const protectMask = permMask | unix.FAN_CLOSE_WRITE

// superblock is a protected file system.
type superblock struct {
	path  string
	dev   uint64 // st_dev of path
	fsid  unix.Fsid
	magic int64
	kdev  uint32 // s_dev in the kernel's encoding, if rememberable
	// rememberable file systems report stores to shared mappings through the
	// page cache's writeback and can be reached by file handles.
	rememberable bool
}

// superblocks lists what is protected; an entry per superblock.
type superblocks struct {
	mu   sync.RWMutex
	list []superblock
}

// ErrOverlay says that an overlay is protected through its backing file system.
var ErrOverlay = errors.New("overlays are protected through the file system below them")

// Protect puts the superblock that holds path under protection: all opens,
// executions and closed writes on it, through any mount, name space or overlay
// on top. Overlays are refused with ErrOverlay unless Config.Overlay says that
// they must be protected one by one (/proc/PID/root). Protecting twice is
// harmless.
func (d *Driver) Protect(path string) error {
	sb, err := inspectSuperblock(path)
	if err != nil {
		return fmt.Errorf("protecting %s: %w", path, err)
	}
	if sb.magic == unix.OVERLAYFS_SUPER_MAGIC && d.cfg.Overlay != Overlay {
		return fmt.Errorf("protecting %s: %w", path, ErrOverlay)
	}
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if err := unix.FanotifyMark(d.cfg.Group.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, protectMask, unix.AT_FDCWD, path); err != nil {
		return fmt.Errorf("protecting %s: %w", path, err)
	}
	for i, old := range d.fs.list {
		if old.same(sb) {
			d.fs.list[i] = sb
			return nil
		}
	}
	d.fs.list = append(d.fs.list, sb)
	return nil
}

// Unprotect ends the protection of the superblock that holds path, or forgets
// it if path is gone (the kernel dropped the mark with the superblock).
func (d *Driver) Unprotect(path string) error {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	sb, err := inspectSuperblock(path)
	gone := errors.Is(err, unix.ENOENT)
	if err != nil && !gone {
		return fmt.Errorf("unprotecting %s: %w", path, err)
	}
	if !gone {
		err := unix.FanotifyMark(d.cfg.Group.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, protectMask, unix.AT_FDCWD, path)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unprotecting %s: %w", path, err)
		}
	}
	d.fs.list = slices.DeleteFunc(d.fs.list, func(s superblock) bool {
		return s.path == path || (!gone && s.same(sb))
	})
	return nil
}

// Protected returns the paths given to Protect, one per superblock, sorted.
func (d *Driver) Protected() []string {
	d.fs.mu.RLock()
	defer d.fs.mu.RUnlock()
	out := make([]string, len(d.fs.list))
	for i, s := range d.fs.list {
		out[i] = s.path
	}
	slices.Sort(out)
	return out
}

func (s superblock) same(o superblock) bool {
	return s.magic == o.magic && s.fsid == o.fsid && (s.dev == o.dev || s.kdev != 0 && s.kdev == o.kdev)
}

// holds reports whether a file with this st_dev and statfs lies on s. On btrfs
// every subvolume has its own st_dev and folds its id into the second half of
// the file system's id (btrfs_statfs), so the first half is compared.
func (s superblock) holds(dev uint64, fs *unix.Statfs_t) bool {
	if s.magic == unix.BTRFS_SUPER_MAGIC {
		return fs.Type == s.magic && fs.Fsid.Val[0] == s.fsid.Val[0]
	}
	return dev == s.dev
}

var errNotRememberable = errors.New("file system does not report every change")

// find returns the superblock of an open file, if its files may be remembered.
func (s *superblocks) find(fd int, dev uint64) (superblock, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return superblock{}, fmt.Errorf("reading the file system: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found superblock
	for _, sb := range s.list {
		if sb.holds(dev, &fs) {
			if found.path != "" {
				return superblock{}, errNotRememberable // ambiguous
			}
			found = sb
		}
	}
	if !found.rememberable {
		return superblock{}, errNotRememberable
	}
	return found, nil
}

// open opens a directory of the superblock for open_by_handle_at. Paths are
// opened when needed: a descriptor kept open would keep the file system from
// being unmounted.
func (s *superblocks) open(kdev uint32) (*os.File, error) {
	s.mu.RLock()
	i := slices.IndexFunc(s.list, func(sb superblock) bool { return sb.rememberable && sb.kdev == kdev })
	if i < 0 {
		s.mu.RUnlock()
		return nil, fmt.Errorf("looking up device %#x: not protected", kdev)
	}
	sb := s.list[i]
	s.mu.RUnlock()
	f, err := os.OpenFile(sb.path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", sb.path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Dev != sb.dev {
		_ = f.Close()
		return nil, fmt.Errorf("opening %s: another file system is mounted there: %w", sb.path, errors.Join(err, unix.ESTALE))
	}
	return f, nil
}

func inspectSuperblock(path string) (superblock, error) {
	var (
		stx unix.Statx_t
		st  unix.Stat_t
		fs  unix.Statfs_t
	)
	if err := unix.Stat(path, &st); err != nil {
		return superblock{}, err
	}
	if err := unix.Statfs(path, &fs); err != nil {
		return superblock{}, err
	}
	sb := superblock{path: path, dev: st.Dev, fsid: fs.Fsid, magic: int64(fs.Type)}
	switch sb.magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
	default:
		return sb, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return sb, nil // handles are opened relative to a directory
	}
	id := uint64(0)
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &stx) == nil && stx.Mask&unix.STATX_MNT_ID != 0 {
		id = stx.Mnt_id
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return superblock{}, err
	}
	sb.rememberable, sb.kdev = kernelDevice(table, id, st.Dev)
	return sb, nil
}

// kernelDevice finds a mount in a mountinfo file by its id, or by its device if
// the path lies in another mount name space, and returns s_dev as the kernel
// encodes it. With DAX stores bypass the page cache, so such mounts are not
// rememberable.
func kernelDevice(mountinfo []byte, id, dev uint64) (bool, uint32) {
	all := mounts.Parse(mountinfo)
	i := slices.IndexFunc(all, func(m mounts.Mount) bool { return m.ID == id })
	if i < 0 {
		i = slices.IndexFunc(all, func(m mounts.Mount) bool { return m.Dev == dev })
	}
	if i < 0 {
		return false, 0
	}
	if how, ok := all[i].FSOption("dax"); ok && how != "never" {
		return false, 0
	}
	return true, unix.Major(all[i].Dev)<<20 | unix.Minor(all[i].Dev)
}
