package mounts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Space is one mount namespace's table, with the overlays in it taken apart.
type Space struct {
	mounts   []Mount
	overlays []layers

	read time.Time     // when the table was read
	cost time.Duration // how long that took
}

// layers is an overlay with its directories, upper first, resolved on the host
// when they are first needed.
type layers struct {
	Overlay
	dirs []layer
}

type layer struct {
	name  string // as the overlay was mounted
	upper bool
}

const (
	maxTable    = 16 << 20 // bytes of a mountinfo file; containers decide its length
	maxOverlays = 256
	maxKept     = 8192
)

// readSpace reads a mountinfo file.
func readSpace(name string) (*Space, error) {
	start := time.Now()
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening a mount table: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err != nil {
		return nil, fmt.Errorf("reading a mount table: %w", err)
	}
	s := newSpace(Parse(text))
	s.read = time.Now()
	s.cost = s.read.Sub(start)
	return s, nil
}

func newSpace(all []Mount) *Space {
	s := &Space{}
	for i := range all {
		if o, ok := all[i].Overlay(); ok && len(s.overlays) < maxOverlays {
			s.overlays = append(s.overlays, newLayers(o))
		}
		if len(s.mounts) < maxKept {
			s.mounts = append(s.mounts, all[i])
		}
	}
	return s
}

func newLayers(o Overlay) layers {
	l := layers{Overlay: o}
	if o.Upper != "" {
		l.dirs = append(l.dirs, layer{o.Upper, true})
	}
	for _, d := range o.Lower {
		l.dirs = append(l.dirs, layer{d, false})
	}
	return l
}

// at returns the mount that a path is on: the longest mount point above it;
// of several on one point, the last one, which hides the others.
func (s *Space) at(p string) (Mount, bool) {
	best := -1
	for i := range s.mounts {
		if _, ok := below(s.mounts[i].Point, p); ok && (best < 0 || len(s.mounts[i].Point) >= len(s.mounts[best].Point)) {
			best = i
		}
	}
	if best < 0 {
		return Mount{}, false
	}
	return s.mounts[best], true
}

// host returns where a path inside a file system is reachable in this space.
func (s *Space) host(dev uint64, fsPath string) (string, bool) {
	best, bestRest := -1, ""
	for i := range s.mounts {
		if s.mounts[i].Dev != dev {
			continue
		}
		if rest, ok := below(s.mounts[i].Root, fsPath); ok && (best < 0 || len(s.mounts[i].Point) < len(s.mounts[best].Point)) {
			best, bestRest = i, rest
		}
	}
	if best < 0 {
		return "", false
	}
	return path.Join(s.mounts[best].Point, bestRest), true
}

// below reports whether p is dir or below it and returns the rest, which is
// empty or starts with a slash.
func below(dir, p string) (string, bool) {
	if dir == "/" {
		return p, strings.HasPrefix(p, "/")
	}
	rest, ok := strings.CutPrefix(p, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// remote lists file systems whose server or process can make a lookup hang.
// Containers can name any directory in an overlay of their own; those on such
// a file system are never touched.
func remote(fsType string) bool {
	for _, prefix := range []string{"nfs", "cifs", "smb", "fuse", "autofs", "9p", "ceph", "afs", "virtiofs", "gfs", "ocfs", "lustre"} {
		if strings.HasPrefix(fsType, prefix) {
			return true
		}
	}
	return false
}

// resolved is a layer directory on the host.
type resolved struct {
	dir string // without symbolic links
	dev uint64 // st_dev of its files; 0 if it cannot be used
}

// resolve opens a layer directory as a location only (O_PATH: no event, no
// access to content) and asks the kernel for its name.
func resolve(host *Space, dir string) resolved {
	if m, ok := host.at(dir); !ok || remote(m.Type) {
		return resolved{}
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return resolved{}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return resolved{}
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || !path.IsAbs(name) {
		return resolved{}
	}
	return resolved{dir: name, dev: st.Dev}
}

// same reports whether name is, without following any symbolic link, the
// inode dev/ino. It opens only the location, which raises no fanotify event.
func same(name string, dev, ino uint64) bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) { // Linux before 5.6
		fd, err = unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Dev == dev && st.Ino == ino
}
