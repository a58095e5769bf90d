package response

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// Original is the file an action is about: its open descriptor and the
// directory and name it was opened by. It is found once; from then on the
// descriptor, not the path, says which file is meant.
type Original struct {
	target Target
	place  *place
	file   *os.File
	stat   unix.Stat_t
}

// OpenOriginal opens the file at a target. It refuses what is not a regular
// file and what belongs to an image (ErrImageLayer). If nothing has that path,
// it may be one made for people, as in threat.Location: its escaped bytes are
// tried too. The caller closes the result.
func OpenOriginal(t Target) (*Original, error) {
	o, err := openOriginal(t)
	if raw := unprintable(t.Path); errors.Is(err, ErrGone) && raw != t.Path {
		t.Path, t.HostPath = raw, unprintable(t.HostPath)
		if o, rawErr := openOriginal(t); !errors.Is(rawErr, ErrGone) {
			return o, rawErr
		}
	}
	return o, err
}

func openOriginal(t Target) (*Original, error) {
	if t.ImageLayer {
		return nil, fmt.Errorf("opening %q: %w", t.Path, ErrImageLayer)
	}
	p, err := t.open()
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", t.Path, classify(err))
	}
	f, st, err := p.openFile(p.base)
	if err != nil {
		p.close()
		return nil, fmt.Errorf("opening %q: %w", t.Path, classify(err))
	}
	o := &Original{target: t, place: p, file: f, stat: st}
	image, err := p.inImageLayer(f)
	if err == nil && image {
		err = ErrImageLayer
	}
	if err != nil {
		o.Close()
		return nil, fmt.Errorf("opening %q: %w", t.Path, err)
	}
	return o, nil
}

// File returns the open file, positioned anywhere; Original closes it.
func (o *Original) File() *os.File { return o.file }

// Close closes the descriptors.
func (o *Original) Close() error { return errors.Join(o.file.Close(), o.place.close()) }

// same reports whether st is the file that was opened.
func (o *Original) same(st *unix.Stat_t) bool {
	return st.Dev == o.stat.Dev && st.Ino == o.stat.Ino && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// unchanged reports an error if the content is no longer the object. Its hash
// is taken again only if the inode changed since it was opened: a program that
// keeps touching its file must not be able to keep it.
func (o *Original) unchanged(ctx context.Context, object threat.Hash) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(o.file.Fd()), &st); err != nil {
		return err
	}
	if st.Size == o.stat.Size && st.Mtim == o.stat.Mtim && st.Ctim == o.stat.Ctim {
		return nil
	}
	got, _, err := hashFile(ctx, o.file)
	if err == nil && got != object {
		return ErrChanged
	}
	return err
}

// removable reports early what would keep the file from being removed.
func (o *Original) removable() error {
	if fixed(int(o.file.Fd())) || fixed(o.place.dir) {
		return ErrImmutable
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(o.place.dir, &fs); err == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return ErrReadOnly
	}
	return nil
}

// removal is the outcome of remove.
type removal struct {
	links uint64 // other names of the file that remain
	// stuck says that the file has its hidden name and neither the removal nor
	// giving the name back worked.
	stuck bool
}

// remove takes the file away: it is renamed to a hidden name in its directory,
// checked to be the file that was opened, and unlinked. Another file that was
// put in its place gets its name back (ErrReplaced). Whoever can put a file
// under the hidden name after the check could as well have unlinked that file,
// so nothing is gained by it. On an error the file has its own name again
// unless the result says that it is stuck.
func (o *Original) remove(ctx context.Context, object threat.Hash, tmp string, step func(string)) (removal, error) {
	p := o.place
	st, err := p.stat(p.base)
	if err != nil {
		return removal{}, o.explain(err)
	}
	if !o.same(&st) {
		return removal{}, ErrReplaced
	}
	if err := o.unchanged(ctx, object); err != nil {
		return removal{}, err
	}
	step("remove: checked")
	if err := p.renameNoReplace(p.base, tmp); err != nil {
		return removal{}, o.explain(err)
	}
	step("remove: renamed")
	if st, err = p.stat(tmp); err != nil {
		return removal{}, o.explain(err) // somebody moved it on
	}
	if !o.same(&st) {
		if err := p.giveBack(tmp); err != nil {
			return removal{}, fmt.Errorf("%w: %w", ErrReplaced, err)
		}
		return removal{}, ErrReplaced
	}
	step("remove: verified")
	if err := unix.Unlinkat(p.dir, tmp, 0); err != nil {
		back := p.giveBack(tmp)
		return removal{stuck: back != nil}, errors.Join(o.explain(err), back)
	}
	step("remove: unlinked")
	// If this is not durable and the power fails, the file is back and is found
	// again: no reason to fail.
	_ = p.sync()
	step("remove: synced")
	return removal{links: max(uint64(st.Nlink), 1) - 1}, nil
}

// giveBack renames what has a hidden name back to the name that was opened, or
// to the next free name like it if that is taken by now.
func (p *place) giveBack(tmp string) error {
	for i := range maxNames {
		err := p.renameNoReplace(tmp, restoredName(p.base, i))
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fmt.Errorf("giving %q its name back: %w", p.sibling(tmp), err)
		}
		return nil
	}
	return fmt.Errorf("giving %q its name back: %w", p.sibling(tmp), unix.EEXIST)
}

// explain finds out why the kernel refused.
func (o *Original) explain(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		if fixed(int(o.file.Fd())) || fixed(o.place.dir) {
			return fmt.Errorf("%w: %w", ErrImmutable, err)
		}
	}
	return classify(err)
}

// fixed reports whether an inode is immutable or append-only, statx(2).
func fixed(fd int) bool {
	var sx unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &sx); err != nil {
		return false
	}
	return sx.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0
}
