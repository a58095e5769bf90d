package response

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"
)

// hidden returns the name an original or an unfinished restored file has in
// its directory. The id has 80 random bits; the name is known before it is
// used, so that recovery finds it.
func hidden(id string) string { return ".lazaret-" + id }

// newItem makes an item for an open file.
func (v *Vault) newItem(ctx context.Context, f *os.File, st *unix.Stat_t, m Meta) (*Item, error) {
	item := &Item{}
	item.ID, item.Node = ulid.Make().String(), v.config.Node
	item.Finding, item.Object, item.Workload, item.Location = m.Finding, m.Object, m.Workload, m.Location
	item.Taken = time.Now().UTC()
	item.Expires = item.Taken.Add(v.config.Retention)
	if err := describe(f, st, item); err != nil {
		return nil, err
	}
	if item.Object.IsZero() {
		var err error
		if item.Object, _, err = hashFile(ctx, f); err != nil {
			return nil, err
		}
	}
	return item, nil
}

// Store puts a copy of an open regular file into the vault and leaves the file
// alone. The content must be m.Object, else ErrChanged. The caller closes f.
func (v *Vault) Store(ctx context.Context, f *os.File, m Meta) (Item, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Item{}, fmt.Errorf("storing in vault: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Item{}, fmt.Errorf("storing in vault: %w", ErrNotRegular)
	}
	item, err := v.newItem(ctx, f, &st, m)
	if err != nil {
		return Item{}, fmt.Errorf("storing in vault: %w", err)
	}
	item.Path = []byte(m.Location.Path)
	if err := v.copy(ctx, f, item); err != nil {
		return Item{}, fmt.Errorf("storing in vault: %w", err)
	}
	defer v.done(item.ID)
	if err := v.move(context.WithoutCancel(ctx), item, phaseHeld); err != nil {
		return Item{}, fmt.Errorf("storing in vault: %w", errors.Join(err, v.rollBack(ctx, item)))
	}
	return *item, nil
}

// copy records the item as storing and brings its content into the vault. If
// it succeeds the item is live.
func (v *Vault) copy(ctx context.Context, f *os.File, item *Item) error {
	item.phase = phaseStoring
	if err := v.insert(ctx, item); err != nil {
		return err
	}
	v.step("quarantine: storing")
	n, err := v.store(ctx, item.ID, f, item.Object)
	if err != nil {
		err = errors.Join(err, v.rollBack(ctx, item))
		v.done(item.ID)
		return err
	}
	item.Size = n
	return nil
}

// rollBack forgets an item whose original was not removed.
func (v *Vault) rollBack(ctx context.Context, item *Item) error {
	err := v.drop(context.WithoutCancel(ctx), item)
	if err != nil {
		v.config.Logger.WarnContext(ctx, "quarantine record is left to recovery",
			slog.String("item", item.ID), slog.Any("error", err))
	}
	return err
}

// Quarantine moves a file into the vault: its content is copied, encrypted and
// made durable, then the original is removed. If anything fails before that,
// the original is untouched and the vault forgets the attempt. Links of the
// result counts other names of the file, which remain.
func (v *Vault) Quarantine(ctx context.Context, o *Original, m Meta) (Item, error) {
	fail := func(err error) (Item, error) {
		return Item{}, fmt.Errorf("quarantining %q: %w", o.target.Path, classify(err))
	}
	if err := o.removable(); err != nil {
		return fail(err)
	}
	item, err := v.newItem(ctx, o.file, &o.stat, m)
	if err != nil {
		return fail(err)
	}
	item.Path = []byte(o.target.Path)
	if o.target.HostPath != "" {
		item.HostPath = []byte(o.target.HostPath)
	}
	item.Work.aim(o.target)
	item.Work.Tmp, item.Work.Ino = hidden(item.ID), o.stat.Ino
	if err := v.copy(ctx, o.file, item); err != nil {
		return fail(err)
	}
	defer v.done(item.ID)
	ctx = context.WithoutCancel(ctx) // from here on, stopping half-way helps nobody
	if err := v.move(ctx, item, phaseRemoving); err != nil {
		return fail(errors.Join(err, v.rollBack(ctx, item)))
	}
	v.step("quarantine: removing")
	r, err := o.remove(ctx, item.Object, item.Work.Tmp, v.step)
	if err != nil && r.stuck {
		return fail(fmt.Errorf("the file is at %q until recovery ends this: %w", o.place.sibling(item.Work.Tmp), err))
	}
	if err != nil {
		return fail(errors.Join(err, v.rollBack(ctx, item)))
	}
	item.Links, item.Work = r.links, work{}
	if err := v.move(ctx, item, phaseHeld); err != nil {
		return *item, fmt.Errorf("quarantining %q: the file is in the vault as %s, its record is left to recovery: %w", o.target.Path, item.ID, err)
	}
	v.step("quarantine: held")
	return *item, nil
}

// Delete removes a file without a copy. It returns how many other names of the
// file remain.
func (v *Vault) Delete(ctx context.Context, o *Original, m Meta) (links uint64, err error) {
	fail := func(err error) (uint64, error) {
		return 0, fmt.Errorf("deleting %q: %w", o.target.Path, classify(err))
	}
	if err := o.removable(); err != nil {
		return fail(err)
	}
	item, err := v.newItem(ctx, o.file, &o.stat, m)
	if err != nil {
		return fail(err)
	}
	// What is deleted must be what was inspected.
	if got, _, err := hashFile(ctx, o.file); err != nil || got != item.Object {
		if err == nil {
			err = ErrChanged
		}
		return fail(err)
	}
	item.Work.aim(o.target)
	item.Work.Tmp, item.Work.Ino = hidden(item.ID), o.stat.Ino
	item.phase = phaseDeleting
	if err := v.insert(ctx, item); err != nil {
		return fail(err)
	}
	defer v.done(item.ID)
	ctx = context.WithoutCancel(ctx)
	v.step("delete: recorded")
	r, err := o.remove(ctx, item.Object, item.Work.Tmp, v.step)
	if err != nil && r.stuck {
		return fail(fmt.Errorf("the file is at %q until recovery ends this: %w", o.place.sibling(item.Work.Tmp), err))
	}
	if err = errors.Join(err, v.rollBack(ctx, item)); err != nil {
		return fail(err)
	}
	return r.links, nil
}
