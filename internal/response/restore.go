package response

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// maxNames bounds the names that are tried when a name is taken.
const maxNames = 1000

// restoredName returns the i-th choice of a name: name, name.restored-1, …,
// cut so that it fits into 255 bytes (NAME_MAX).
func restoredName(name string, i int) string {
	if i == 0 {
		return name
	}
	suffix := ".restored-" + strconv.Itoa(i)
	return name[:min(len(name), 255-len(suffix))] + suffix
}

// RestoreOptions say how an item is restored.
type RestoreOptions struct {
	// Target is where the file goes. Its directory must exist.
	Target Target
	// Rescan inspects the content again before the file gets a name. Required.
	Rescan func(ctx context.Context, f *os.File) (threat.Verdict, error)
	// Allowed says that a person allow-listed the object: it is restored whatever
	// the rescan says.
	Allowed bool
}

// Restored is the outcome of a restore.
type Restored struct {
	Path    string // raw; differs from the target's if that name was taken
	Verdict threat.Verdict
	// Refused names the extended attributes that could not be set.
	Refused []string
}

// Restore puts an item back: content, owner, mode, extended attributes and
// times. The file gets its name only when it is complete, on disk and
// inspected again, and it never replaces another one. Then the vault lets its
// content go. It fails with ErrStillMalicious or ErrNotInspected if the
// rescan does not permit it; the item stays in the vault.
func (v *Vault) Restore(ctx context.Context, id string, o RestoreOptions) (Restored, error) {
	fail := func(err error) (Restored, error) {
		return Restored{}, fmt.Errorf("restoring quarantine item %s: %w", id, classify(err))
	}
	if o.Rescan == nil {
		return fail(ErrNotInspected)
	}
	if !v.take(id) {
		return fail(fmt.Errorf("%w: it is being worked on", ErrState))
	}
	defer v.done(id)
	item, err := v.Get(ctx, id)
	if err != nil {
		return fail(err)
	}
	if item.phase != phaseHeld {
		return fail(fmt.Errorf("%w: its state is %s", ErrState, item.State))
	}
	p, err := o.Target.open()
	if err != nil {
		return fail(err)
	}
	defer p.close()
	item.Work = work{Tmp: hidden(id)}
	item.Work.aim(o.Target)
	if err := v.move(ctx, &item, phaseRestoring); err != nil {
		return fail(err)
	}
	v.step("restore: restoring")
	r, err := v.putBack(ctx, &item, p, o)
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		item.Work = work{}
		_, err = fail(errors.Join(err, v.move(ctx, &item, phaseHeld)))
		return Restored{Verdict: r.Verdict}, err
	}
	if err := v.restored(ctx, &item, r.Path); err != nil {
		return r, fmt.Errorf("restoring quarantine item %s: the file is at %q, its record is left to recovery: %w", id, r.Path, err)
	}
	return r, nil
}

// restored records that the file is at path and lets the content go.
func (v *Vault) restored(ctx context.Context, item *Item, path string) error {
	item.Work, item.RestoredTo = work{}, []byte(path)
	if err := v.move(ctx, item, phaseRestored); err != nil {
		return err
	}
	v.step("restore: restored")
	err := v.release(ctx, item.Object)
	v.step("restore: released")
	return err
}

// putBack writes the file and gives it a name. On an error the file has none.
func (v *Vault) putBack(ctx context.Context, item *Item, p *place, o RestoreOptions) (r Restored, err error) {
	f, named, err := p.create(item.Work.Tmp, v.named)
	if err != nil {
		return r, err
	}
	if named {
		defer func() {
			if err != nil && r.Path == "" {
				err = errors.Join(err, unix.Unlinkat(p.dir, item.Work.Tmp, 0))
			}
		}()
	}
	defer f.Close()
	v.step("restore: created")
	if r.Refused, err = v.fill(ctx, f, item); err != nil {
		return r, err
	}
	v.step("restore: complete")
	if r.Verdict, err = rescan(ctx, f, o); err != nil {
		return r, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return r, err
	}
	item.Work.Ino = st.Ino
	for i := range maxNames {
		name := restoredName(p.base, i)
		// Recorded before the name exists, so that recovery can tell whether this
		// file got it.
		item.Work.Name = []byte(name)
		if err := v.move(ctx, item, phaseRestoring); err != nil {
			return r, err
		}
		v.step("restore: named")
		if named {
			err = p.renameNoReplace(item.Work.Tmp, name)
		} else {
			err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), p.dir, name, unix.AT_SYMLINK_FOLLOW)
		}
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return r, err
		}
		v.step("restore: linked")
		r.Path = p.sibling(name)
		// A name that is not durable yet would be lost with the power while the
		// content is let go: this must not fail.
		if err := p.sync(); err != nil {
			return r, errors.Join(err, unix.Unlinkat(p.dir, name, 0))
		}
		v.step("restore: durable")
		return r, nil
	}
	return r, fmt.Errorf("%q and %d names like it are taken: %w", p.path, maxNames-1, unix.EEXIST)
}

// create makes a file without a name in the directory, or one with the hidden
// name if that is asked for or the file system cannot do the former.
func (p *place) create(tmp string, name bool) (f *os.File, named bool, err error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	fd, err := -1, error(unix.EOPNOTSUPP)
	if !name {
		fd, err = unix.Openat(p.dir, ".", flags|unix.O_TMPFILE, 0o600)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		named = true
		fd, err = unix.Openat(p.dir, tmp, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		return nil, false, &os.PathError{Op: "create", Path: p.path, Err: err}
	}
	return os.NewFile(uintptr(fd), p.path), named, nil
}

// fill writes content and metadata and makes them durable. The order matters:
// changing the owner clears set-user-id bits and capabilities, writing changes
// the times.
func (v *Vault) fill(ctx context.Context, f *os.File, item *Item) (refused []string, err error) {
	c, err := v.open(item.Object)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := c.Read(buf)
		if _, werr := f.Write(buf[:n]); werr != nil {
			return nil, werr
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(item.UID), int(item.GID)); err != nil {
		return nil, fmt.Errorf("setting the owner: %w", err)
	}
	if err := unix.Fchmod(fd, item.Mode); err != nil {
		return nil, fmt.Errorf("setting the mode: %w", err)
	}
	refused = writeXattrs(f, item.Xattrs)
	times := []unix.Timespec{timespec(item.AccessTime), timespec(item.ModTime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), times, 0); err != nil {
		return nil, fmt.Errorf("setting the times: %w", err)
	}
	return refused, retry(func() error { return unix.Fsync(fd) })
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// rescan asks for the verdict on the restored content through a descriptor
// that cannot change it.
func rescan(ctx context.Context, f *os.File, o RestoreOptions) (threat.Verdict, error) {
	ro, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return "", fmt.Errorf("inspecting again: %w", err)
	}
	defer ro.Close()
	verdict, err := o.Rescan(ctx, ro)
	switch {
	case o.Allowed:
		return verdict, nil
	case err != nil:
		return verdict, fmt.Errorf("%w: %w", ErrNotInspected, err)
	case verdict.Threat():
		return verdict, ErrStillMalicious
	case verdict != threat.Clean && verdict != threat.Partial:
		return verdict, fmt.Errorf("%w: the verdict is %q", ErrNotInspected, verdict)
	}
	return verdict, nil
}
