package response

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Target says where a file is. Paths are raw bytes: file names need not be
// UTF-8.
type Target struct {
	// PID is any process in the mount namespace the Path belongs to; 0 means the
	// host's.
	PID int
	// Start is that process's start time (threat.Process.Start); 0 means any.
	Start uint64
	// Path is absolute and free of symbolic links, as the kernel reports it.
	Path string
	// HostPath is the backing file on the host, used when the process is gone;
	// empty if unknown.
	HostPath string
	// ImageLayer says that the file is part of an image.
	ImageLayer bool
}

// place is a directory that was reached without following a symbolic link,
// and a name in it.
type place struct {
	dir  int // O_PATH
	base string
	root string // "/" or "/proc/PID/root"
	path string // under root
}

func (p *place) close() error { return unix.Close(p.dir) }

// open opens the directory that holds the target. If the target's process is
// gone, it is looked for under its host path.
func (t Target) open() (*place, error) {
	if t.PID == 0 {
		return openPlace("/", t.Path)
	}
	root := "/proc/" + strconv.Itoa(t.PID) + "/root"
	p, err := openPlace(root, t.Path)
	if err == nil && t.Start != 0 {
		// Asked after the root was opened: if the answer is the one expected, it
		// was that process's root and not that of a later one with its number.
		var start uint64
		if start, err = startTime(t.PID); err == nil && start != t.Start {
			err = unix.ESRCH
		}
		if err != nil {
			p.close()
		}
	}
	if err != nil && t.HostPath != "" && !running(t.PID, t.Start) {
		return openPlace("/", t.HostPath)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// openPlace resolves the parent of name below root with openat2(2): neither
// symbolic links nor ".." can lead elsewhere.
func openPlace(root, name string) (*place, error) {
	if name == "" {
		return nil, fmt.Errorf("no path is known: %w", ErrGone)
	}
	clean := path.Clean(name)
	if !strings.HasPrefix(name, "/") || clean == "/" || clean != strings.TrimRight(name, "/") {
		return nil, fmt.Errorf("path %q is not absolute and clean", name)
	}
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(rootFD)
	parent, base := path.Split(clean[1:])
	if parent == "" {
		parent = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	var dir int
	// openat2 reports EAGAIN when a rename elsewhere raced with it.
	for range 100 {
		if dir, err = unix.Openat2(rootFD, parent, &how); err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: parent, Err: err}
	}
	return &place{dir: dir, base: base, root: root, path: clean}, nil
}

// sibling returns the path of another name in the same directory, as seen
// under the root.
func (p *place) sibling(name string) string { return path.Join(path.Dir(p.path), name) }

// openFile opens the name without following a link and without touching
// anything but a regular file: opening a FIFO or a device has effects.
func (p *place) openFile(name string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat(p.dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, &os.PathError{Op: "open", Path: p.sibling(name), Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, &os.PathError{Op: "stat", Path: p.sibling(name), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, fmt.Errorf("%s: %w", p.sibling(name), ErrNotRegular)
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY, 0)
	if err != nil {
		return nil, st, err
	}
	return f, st, nil
}

// stat describes the name itself.
func (p *place) stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(p.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// sync makes changes of the directory durable.
func (p *place) sync() error {
	fd, err := unix.Openat(p.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = retry(func() error { return unix.Fsync(fd) })
	if err == unix.EINVAL || err == unix.ENOTSUP { // file systems that keep nothing
		return nil
	}
	return err
}

// renameNoReplace renames within the directory and fails with EEXIST rather
// than replace anything.
func (p *place) renameNoReplace(from, to string) error {
	err := retry(func() error { return unix.Renameat2(p.dir, from, p.dir, to, unix.RENAME_NOREPLACE) })
	if err == unix.EINVAL || err == unix.ENOSYS {
		return p.relink(from, to)
	}
	return err
}

// relink does the same on file systems without that flag (some network and
// FUSE ones). A crash between its steps leaves both names.
func (p *place) relink(from, to string) error {
	if err := unix.Linkat(p.dir, from, p.dir, to, 0); err != nil {
		return err
	}
	return unix.Unlinkat(p.dir, from, 0)
}
