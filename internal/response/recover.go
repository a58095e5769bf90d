package response

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Recovered is an item whose operation a crash interrupted.
type Recovered struct {
	Item Item
	// Done says that the operation was finished; otherwise it was undone.
	Done bool
	// What is "quarantine", "restore" or "delete".
	What string
}

// Recover finishes or undoes every operation that a crash interrupted and
// deletes content that nothing refers to. It is called once before the vault
// is used and may be called again at any time. An item it cannot bring to an
// end stays as it is and is part of the error; the others are not affected.
func (v *Vault) Recover(ctx context.Context) ([]Recovered, error) {
	items, err := v.query(ctx, "phase IN ('"+phaseStoring+"','"+phaseRemoving+"','"+phaseRestoring+"','"+phaseDeleting+"') ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("recovering vault: %w", err)
	}
	var all []Recovered
	var errs []error
	for i := range items {
		if !v.take(items[i].ID) {
			continue
		}
		r, err := v.recover(ctx, &items[i])
		v.done(items[i].ID)
		v.step("recover: item settled")
		if err != nil {
			errs = append(errs, fmt.Errorf("recovering quarantine item %s: %w", items[i].ID, err))
			continue
		}
		all = append(all, r)
	}
	if err := v.sweep(ctx); err != nil {
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

func (v *Vault) recover(ctx context.Context, item *Item) (Recovered, error) {
	r := Recovered{}
	var err error
	switch item.phase {
	case phaseStoring:
		r.What, err = "quarantine", v.drop(ctx, item)
	case phaseRemoving:
		r.What, r.Done = "quarantine", true
		if err = v.finishRemoval(ctx, item); err == nil {
			item.Work = work{}
			err = v.move(ctx, item, phaseHeld)
		}
	case phaseDeleting:
		r.What, r.Done = "delete", true
		if err = v.finishRemoval(ctx, item); err == nil {
			err = v.drop(ctx, item)
		}
	case phaseRestoring:
		r.What = "restore"
		r.Done, err = v.settleRestore(ctx, item)
	}
	r.Item = *item
	return r, err
}

// finishRemoval removes the original if it is still under its own or its
// hidden name. The device number is not compared: it may be another after a
// restart; the content is.
func (v *Vault) finishRemoval(ctx context.Context, item *Item) error {
	p, err := item.Work.target().open()
	if errors.Is(classify(err), ErrGone) {
		return nil // with its directory, container or mount
	}
	if err != nil {
		return err
	}
	defer p.close()
	for _, name := range []string{item.Work.Tmp, p.base} {
		same, err := v.isObject(ctx, p, name, item)
		if err != nil {
			return err
		}
		_, statErr := p.stat(name)
		switch {
		case same:
			v.step("recover: removing")
			if err := unix.Unlinkat(p.dir, name, 0); err != nil {
				return classify(err)
			}
			v.step("recover: removed")
		case statErr == nil && name == item.Work.Tmp:
			// The rename caught another file and the crash came before that was
			// given its name back.
			if err := p.giveBack(name); err != nil {
				return err
			}
		}
	}
	return classify(p.sync())
}

// settleRestore finds out whether the file got its name before the crash.
func (v *Vault) settleRestore(ctx context.Context, item *Item) (done bool, err error) {
	p, err := item.Work.target().open()
	if errors.Is(classify(err), ErrGone) {
		item.Work = work{}
		return false, v.move(ctx, item, phaseHeld)
	}
	if err != nil {
		return false, err
	}
	defer p.close()
	name := string(item.Work.Name)
	if name != "" {
		if done, err = v.isObject(ctx, p, name, item); err != nil {
			return false, err
		}
	}
	// An unfinished file has the hidden name, or none and is gone by itself.
	if err := unix.Unlinkat(p.dir, item.Work.Tmp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return false, classify(err)
	}
	v.step("recover: unfinished file removed")
	if err := p.sync(); err != nil {
		return false, classify(err)
	}
	if done {
		return true, v.restored(ctx, item, p.sibling(name))
	}
	item.Work = work{}
	return false, v.move(ctx, item, phaseHeld)
}

// isObject reports whether the file with that name is the inode the item
// recorded and holds the item's object.
func (v *Vault) isObject(ctx context.Context, p *place, name string, item *Item) (bool, error) {
	f, st, err := p.openFile(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, ErrNotRegular) {
		return false, nil
	}
	if err != nil {
		return false, classify(err)
	}
	defer f.Close()
	if st.Ino != item.Work.Ino {
		return false, nil
	}
	got, _, err := hashFile(ctx, f)
	return err == nil && got == item.Object, err
}
