package target

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// dir is an open directory shared by the walk and by the items that will be
// opened relative to it, so that no path is resolved twice.
type dir struct {
	fd   int
	refs atomic.Int32
}

func newDir(fd int) *dir {
	d := &dir{fd: fd}
	d.refs.Store(1)
	return d
}

func (d *dir) hold() *dir {
	d.refs.Add(1)
	return d
}

func (d *dir) release() {
	if d.refs.Add(-1) == 0 {
		unix.Close(d.fd)
	}
}

// openDir opens a sub-directory; a symbolic link is an error.
func (d *dir) openDir(name string) (*dir, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return newDir(fd), nil
}

// openFile opens a file for reading. The flags make sure that nothing waits
// or has an effect should the name have become something else meanwhile.
func (d *dir) openFile(name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := openat(d.fd, name, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) { // O_NOATIME is for owners
		fd, err = openat(d.fd, name, flags)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openat(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (d *dir) stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EINTR {
			return st, err
		}
	}
}

// sortedNames is how many names of one directory are held at a time: bounded
// memory (at most about 16 MB) and still one pass for nearly all directories.
const sortedNames = 32 << 10

// names yields the directory's names in byte order, from the first one that is
// not less than from. A directory with more names than limit is read several
// times, limit names a pass.
func (d *dir) names(from string, limit int, yield func(string) error) error {
	for more := true; more; {
		batch, rest, err := d.pass(from, limit)
		if err != nil {
			return err
		}
		for _, name := range batch {
			if err := yield(name); err != nil {
				return err
			}
		}
		if more = rest; more {
			from = batch[len(batch)-1] + "\x00" // the least name after it
		}
	}
	return nil
}

// pass reads the directory once and returns its limit least names not below
// from, and whether there are more.
func (d *dir) pass(from string, limit int) (batch []string, more bool, err error) {
	// A descriptor of its own: the directory's offset belongs to nobody else.
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return nil, false, fmt.Errorf("reading directory: %w", err)
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	for {
		some, err := f.Readdirnames(1024)
		for _, name := range some {
			if name >= from {
				batch = append(batch, name)
			}
		}
		if len(batch) >= 2*limit {
			slices.Sort(batch)
			batch, more = batch[:limit], true
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, fmt.Errorf("reading directory: %w", err)
		}
	}
	slices.Sort(batch)
	if len(batch) > limit {
		batch, more = batch[:limit], true
	}
	return batch, more, nil
}
