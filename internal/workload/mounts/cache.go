package mounts

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// ErrNotFound says that no mount of the process leads to the file: it was
// unlinked or renamed, or the process is gone.
var ErrNotFound = errors.New("no mount leads to the file")

// Place is where a process sees a file and where the host has it.
type Place struct {
	// Path as the process sees it.
	Path string
	// HostPath is the same inode by its path in this program's mount namespace;
	// it has no symbolic links and was checked by device and inode number.
	HostPath string
	// Layer is the directory of the overlay layer that holds the file, without
	// symbolic links; empty if the file is not on an overlay.
	Layer string
	// LayerName is the same directory as the overlay was mounted.
	LayerName string
	// Upper says that Layer is the overlay's writable layer.
	Upper bool
}

// Cache remembers mount tables per mount namespace and root directory. A table
// is read again when it is older than a few seconds or does not lead to a
// file: a new container's namespace starts with copies of the host's mounts.
// It is safe for concurrent use.
type Cache struct {
	proc string

	mu     sync.Mutex
	spaces map[key]*Space
	own    *Space
	dirs   map[string]resolved
}

type key struct{ ns, root string }

const (
	maxAge    = 3 * time.Second
	slow      = 2 * time.Millisecond // a table of some thousand mounts
	maxSpaces = 2048
	maxDirs   = 16384
)

// NewCache returns an empty cache over a proc file system, usually "/proc".
func NewCache(proc string) *Cache {
	return &Cache{proc: proc, spaces: map[key]*Space{}, dirs: map[string]resolved{}}
}

// Locate finds the file dev/ino that process pid opened. Name is the
// descriptor's path as the kernel gives it for an event on the backing file
// system: relative to the layer for files on an overlay, else as the process
// sees it.
func (c *Cache) Locate(pid int, name string, dev, ino uint64) (Place, error) {
	if !path.IsAbs(name) {
		return Place{}, fmt.Errorf("locating %q: %w", name, ErrNotFound)
	}
	start := time.Now()
	s, own, k, err := c.tables(pid)
	if err != nil {
		return Place{}, err
	}
	if p, ok := c.search(s, own, name, dev, ino); ok {
		return p, nil
	}
	// Reading a long table again must not become a way to keep us busy:
	// containers decide how long theirs is.
	if s.read.After(start) || (s.cost > slow && time.Since(s.read) < 10*s.cost) {
		return Place{}, fmt.Errorf("locating %q: %w", name, ErrNotFound)
	}
	if s, err = c.load(pid, k); err != nil {
		return Place{}, err
	}
	if own, err = c.loadOwn(); err != nil {
		return Place{}, err
	}
	if p, ok := c.search(s, own, name, dev, ino); ok {
		return p, nil
	}
	return Place{}, fmt.Errorf("locating %q: %w", name, ErrNotFound)
}

// tables returns the process's and this program's tables.
func (c *Cache) tables(pid int) (s, own *Space, k key, err error) {
	dir := c.proc + "/" + strconv.Itoa(pid)
	if k.ns, err = os.Readlink(dir + "/ns/mnt"); err != nil {
		return nil, nil, k, fmt.Errorf("reading the mount namespace of process %d: %w", pid, err)
	}
	if k.root, err = os.Readlink(dir + "/root"); err != nil {
		return nil, nil, k, fmt.Errorf("reading the root of process %d: %w", pid, err)
	}
	c.mu.Lock()
	s, own = c.spaces[k], c.own
	c.mu.Unlock()
	now := time.Now()
	if s == nil || now.Sub(s.read) > maxAge {
		if s, err = c.load(pid, k); err != nil {
			return nil, nil, k, err
		}
	}
	if own == nil || now.Sub(own.read) > maxAge {
		if own, err = c.loadOwn(); err != nil {
			return nil, nil, k, err
		}
	}
	return s, own, k, nil
}

func (c *Cache) load(pid int, k key) (*Space, error) {
	s, err := readSpace(c.proc + "/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spaces) >= maxSpaces {
		clear(c.spaces)
	}
	c.spaces[k] = s
	return s, nil
}

func (c *Cache) loadOwn() (*Space, error) {
	own, err := readSpace(c.proc + "/self/mountinfo")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = own
	clear(c.dirs) // a mount may have come over a layer's directory
	return own, nil
}

func (c *Cache) search(s, own *Space, name string, dev, ino uint64) (Place, bool) {
	for i := range s.overlays {
		o := &s.overlays[i]
		rest, ok := below(o.Root, name)
		if !ok {
			continue
		}
		for _, l := range o.dirs {
			r := c.resolve(own, l.name)
			if r.dev != dev {
				continue
			}
			if host := filepath.Join(r.dir, name); same(host, dev, ino) {
				return Place{Path: path.Join(o.Point, rest), HostPath: host, Layer: r.dir, LayerName: l.name, Upper: l.upper}, true
			}
		}
	}
	m, ok := s.at(name)
	if !ok {
		return Place{}, false
	}
	rest, _ := below(m.Point, name)
	if host, ok := own.host(m.Dev, path.Join(m.Root, rest)); ok && same(host, dev, ino) {
		return Place{Path: name, HostPath: host}, true
	}
	return Place{}, false
}

// resolve is the cached form of the function of that name.
func (c *Cache) resolve(own *Space, dir string) resolved {
	c.mu.Lock()
	r, ok := c.dirs[dir]
	c.mu.Unlock()
	if ok {
		return r
	}
	r = resolve(own, dir)
	if r.dev == 0 {
		return r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dirs) >= maxDirs {
		clear(c.dirs)
	}
	c.dirs[dir] = r
	return r
}

// LayerDir is a layer directory of a process's root file system.
type LayerDir struct {
	Dir   string // on the host, without symbolic links
	Name  string // as the overlay was mounted
	Upper bool   // the writable layer
}

// Layers returns the layers of the overlay that is the process's root
// directory, topmost first; none if its root is no overlay. Layers that this
// program cannot reach make it an error: they would be missed in a scan.
func (c *Cache) Layers(pid int) ([]LayerDir, error) {
	s, err := readSpace(c.proc + "/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := c.loadOwn()
	if err != nil {
		return nil, err
	}
	m, ok := s.at("/")
	if !ok || m.Type != "overlay" {
		return nil, nil
	}
	o, ok := m.Overlay()
	if !ok || o.Root != "/" {
		return nil, nil
	}
	var out []LayerDir
	for _, l := range newLayers(o).dirs {
		r := c.resolve(own, l.name)
		if r.dev == 0 {
			return nil, fmt.Errorf("finding the layer %s of process %d: %w", l.name, pid, ErrNotFound)
		}
		out = append(out, LayerDir{Dir: r.dir, Name: l.name, Upper: l.upper})
	}
	return out, nil
}
