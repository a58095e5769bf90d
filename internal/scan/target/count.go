package target

import (
	"context"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// countStep is how many files are counted between two reports.
const countStep = 1000

// Count implements Source: it only reads directories, which is far cheaper
// than scanning, so it runs ahead of the scan. Errors are left to Walk.
func (t *Tree) Count(ctx context.Context, add func(files int64)) error {
	parent, _, st, err := t.root()
	if err != nil {
		return nil
	}
	defer parent.release()
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		add(1)
		return nil
	}
	if kernelFileSystem(parent.fd) != nil {
		return nil
	}
	c := counter{ctx: ctx, add: add, oneFS: t.OneFileSystem}
	err = c.dir(parent, st.Dev, 0)
	add(c.files)
	return err
}

type counter struct {
	ctx   context.Context
	add   func(int64)
	files int64 // not yet reported
	oneFS bool
}

func (c *counter) dir(d *dir, dev uint64, depth int) error {
	if depth > maxDepth {
		return nil
	}
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	for {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			switch {
			case e.Type().IsRegular():
				c.files++
			case e.IsDir():
				if err := c.below(d, e, dev, depth); err != nil {
					return err
				}
			}
		}
		if c.files >= countStep {
			c.add(c.files)
			c.files = 0
		}
		if err != nil { // the end, or unreadable: Walk tells
			return nil
		}
	}
}

func (c *counter) below(d *dir, e fs.DirEntry, dev uint64, depth int) error {
	sub, err := d.openDir(e.Name())
	if err != nil {
		return nil
	}
	defer sub.release()
	var st unix.Stat_t
	if err := unix.Fstat(sub.fd, &st); err != nil {
		return nil
	}
	if st.Dev != dev && (c.oneFS || kernelFileSystem(sub.fd) != nil) {
		return nil
	}
	return c.dir(sub, st.Dev, depth+1)
}
