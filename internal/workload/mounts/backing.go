package mounts

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strconv"
)

// FileSystem is a file system of the host that holds files of containers.
type FileSystem struct {
	Point  string // a mount point of it in this program's namespace
	Dev    uint64 // as mountinfo shows it
	Type   string
	Source string
	// For is a directory or container mount that made us find it.
	For string
}

// Backing returns the file systems that hold the given directories (runtimes'
// roots; those that do not exist are left out) and the layers and disk mounts
// of the given processes, each once, sorted by mount point. Processes that
// are gone are left out; other errors are returned together with what was
// found.
func (c *Cache) Backing(dirs []string, pids []int) ([]FileSystem, error) {
	own, err := c.loadOwn()
	if err != nil {
		return nil, err
	}
	b := backing{c: c, own: own, found: map[uint64]FileSystem{}}
	for _, d := range dirs {
		b.dir(d)
	}
	var errs []error
	for _, pid := range pids {
		s, err := readSpace(c.proc + "/" + strconv.Itoa(pid) + "/mountinfo")
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		b.space(s)
	}
	out := make([]FileSystem, 0, len(b.found))
	for _, f := range b.found {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b FileSystem) int { return cmp.Compare(a.Point, b.Point) })
	return out, errors.Join(errs...)
}

type backing struct {
	c     *Cache
	own   *Space
	found map[uint64]FileSystem
}

// dir adds the file system that a directory is on.
func (b *backing) dir(d string) {
	r := b.c.resolve(b.own, d)
	if r.dev == 0 {
		return
	}
	if m, ok := b.own.at(r.dir); ok {
		b.add(m, d)
	}
}

func (b *backing) space(s *Space) {
	for i := range s.overlays {
		for _, l := range s.overlays[i].dirs {
			b.dir(l.name)
		}
	}
	for i := range s.mounts {
		if !disk(s.mounts[i].Type) {
			continue
		}
		// The host must have a mount of the same file system to mark it by.
		if m, ok := b.own.device(s.mounts[i].Dev); ok {
			b.add(m, s.mounts[i].Point)
		}
	}
}

func (b *backing) add(m Mount, why string) {
	if _, ok := b.found[m.Dev]; !ok && disk(m.Type) {
		b.found[m.Dev] = FileSystem{Point: m.Point, Dev: m.Dev, Type: m.Type, Source: m.Source, For: why}
	}
}

// device returns the mount of a device with the shortest root and point.
func (s *Space) device(dev uint64) (Mount, bool) {
	best := -1
	for i := range s.mounts {
		if s.mounts[i].Dev == dev && (best < 0 || len(s.mounts[i].Root)+len(s.mounts[i].Point) < len(s.mounts[best].Root)+len(s.mounts[best].Point)) {
			best = i
		}
	}
	if best < 0 {
		return Mount{}, false
	}
	return s.mounts[best], true
}

// disk lists the types of file systems that keep files of containers.
func disk(fsType string) bool {
	return slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "nilfs2", "tmpfs"}, fsType)
}
