package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/threat"
)

// maxDepth bounds the nesting of directories, each of which keeps a descriptor
// open during the walk.
const maxDepth = 400

// Tree is a file or a directory with everything below it.
type Tree struct {
	// Path that is opened; a symbolic link at its end is followed.
	Path string
	// Shown is the path to display for it, default Path. Paths below are joined
	// to it.
	Shown string
	// Location is copied to every item, with Path set.
	Location threat.Location
	// OneFileSystem leaves out what is mounted below.
	OneFileSystem bool
	// Note is copied to every item.
	Note bool

	// batch overrides sortedNames in tests.
	batch int
}

// Walk implements Source; positions are paths relative to the tree's root.
func (t *Tree) Walk(ctx context.Context, after string, yield func(Item) error) error {
	shown := t.Shown
	if shown == "" {
		shown = t.Path
	}
	w := walk{tree: t, ctx: ctx, yield: yield, batch: t.batch}
	if w.batch == 0 {
		w.batch = sortedNames
	}
	parent, name, st, err := t.root()
	if err != nil {
		return w.problem(".", shown, unreadable(err))
	}
	defer parent.release()
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if after != "" {
			return nil
		}
		return w.entry(parent, name, ".", shown, &st)
	}
	w.dev = st.Dev
	if reason := kernelFileSystem(parent.fd); reason != nil {
		return w.problem(".", shown, reason)
	}
	if after == "." {
		after = ""
	}
	return w.dir(parent, "", shown, strings.Split(after, "/"), 0)
}

// root opens the tree's top: a directory itself, or the directory of a file.
func (t *Tree) root() (*dir, string, unix.Stat_t, error) {
	var st unix.Stat_t
	// O_PATH has no effect on what is opened and follows the magic links of
	// /proc, as /proc/PID/root.
	fd, err := openat(unix.AT_FDCWD, t.Path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return nil, "", st, err
	}
	d := newDir(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		d.release()
		return nil, "", st, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return d, "", st, nil
	}
	d.release()
	real, err := filepath.EvalSymlinks(t.Path)
	if err != nil {
		return nil, "", st, err
	}
	fd, err = openat(unix.AT_FDCWD, filepath.Dir(real), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, "", st, err
	}
	d = newDir(fd)
	st, err = d.stat(filepath.Base(real))
	if err != nil {
		d.release()
		return nil, "", st, err
	}
	return d, filepath.Base(real), st, nil
}

type walk struct {
	tree  *Tree
	ctx   context.Context
	yield func(Item) error
	dev   uint64
	batch int
}

// dir walks a directory; after holds the components of the position to resume
// behind, its first one is in this directory.
func (w *walk) dir(d *dir, rel, shown string, after []string, depth int) error {
	var stop error // what yield returned, as opposed to errors of reading
	err := d.names(after[0], w.batch, func(name string) error {
		var below []string
		if name == after[0] && name != "" {
			if len(after) == 1 {
				return nil // this is the one that was done last
			}
			below = after[1:]
		}
		stop = w.child(d, name, path.Join(rel, name), join(shown, name), below, depth)
		return stop
	})
	if stop != nil || err == nil {
		return stop
	}
	return w.problem(position(rel), shown, unreadable(err))
}

func (w *walk) child(d *dir, name, rel, shown string, after []string, depth int) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	st, err := d.stat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed since the directory was read: it is not there
		}
		return w.problem(rel, shown, unreadable(err))
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
	default:
		if after != nil {
			after = nil // was a directory when the scan stopped
		}
		return w.entry(d, name, rel, shown, &st)
	}
	if after == nil {
		after = []string{""}
	}
	if depth >= maxDepth {
		return w.problem(rel, shown, &threat.Reason{
			Code: threat.ReasonLimitDepth,
			Text: fmt.Sprintf("Directories are nested deeper than %d; what is below was not inspected.", maxDepth),
		})
	}
	sub, err := d.openDir(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return w.problem(rel, shown, unreadable(err))
	}
	defer sub.release()
	// Ask the opened directory: an automount, or a rename, may have happened.
	if err := unix.Fstat(sub.fd, &st); err != nil {
		return w.problem(rel, shown, unreadable(err))
	}
	if st.Dev != w.dev {
		if w.tree.OneFileSystem {
			return nil
		}
		if reason := kernelFileSystem(sub.fd); reason != nil {
			return w.problem(rel, shown, reason)
		}
		outer := w.dev
		w.dev = st.Dev
		defer func() { w.dev = outer }()
	}
	return w.dir(sub, rel, shown, after, depth+1)
}

// entry yields what is not a directory.
func (w *walk) entry(d *dir, name, rel, shown string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return w.problem(rel, shown, notRegular(st.Mode))
	}
	it := w.item(rel, shown)
	it.Key, it.Size = keyOf(st), st.Size
	it.dir, it.name = d.hold(), name
	return w.yield(it)
}

func (w *walk) problem(rel, shown string, r *threat.Reason) error {
	it := w.item(rel, shown)
	it.Problem = r
	return w.yield(it)
}

func (w *walk) item(rel, shown string) Item {
	it := Item{Position: rel, Location: w.tree.Location, Note: w.tree.Note}
	it.Location.Path = threat.Printable(shown)
	return it
}

// Open opens the item's file and returns the key of what was opened. The
// caller closes the file. Errors are *Problem.
func (i *Item) Open(ctx context.Context) (*os.File, event.FileKey, error) {
	if i.Problem != nil {
		return nil, event.FileKey{}, &Problem{Reason: *i.Problem}
	}
	var f *os.File
	var err error
	if i.open != nil {
		f, err = i.open(ctx)
	} else {
		f, err = i.dir.openFile(i.name)
	}
	if err != nil {
		var p *Problem
		if errors.As(err, &p) {
			return nil, event.FileKey{}, p
		}
		return nil, event.FileKey{}, &Problem{Reason: *unreadable(err), Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, event.FileKey{}, &Problem{Reason: *unreadable(err), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, event.FileKey{}, &Problem{Reason: *notRegular(st.Mode)}
	}
	return f, keyOf(&st), nil
}

// Current says whether the item's name still means the inode of the key: false
// if another file took its place. A name that is gone counts as current: what
// was inspected was all there is.
func (i *Item) Current(k event.FileKey) bool {
	if i.dir == nil {
		return true
	}
	st, err := i.dir.stat(i.name)
	return err != nil || st.Ino == k.Ino && st.Dev == k.Dev
}

func keyOf(st *unix.Stat_t) event.FileKey {
	return event.FileKey{Dev: st.Dev, Ino: st.Ino, CTime: st.Ctim.Nano(), MTime: st.Mtim.Nano(), Size: st.Size}
}

func join(shown, name string) string {
	if strings.HasSuffix(shown, "/") {
		return shown + name
	}
	return shown + "/" + name
}

func position(rel string) string {
	if rel == "" {
		return "."
	}
	return rel
}
