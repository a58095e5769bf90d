package response

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/internal/sqlite"
)

// Purge deletes an item's content for good. Its record stays, with the state
// purged, for the retention time.
func (v *Vault) Purge(ctx context.Context, id string) (Item, error) {
	if !v.take(id) {
		return Item{}, fmt.Errorf("purging quarantine item %s: %w: it is being worked on", id, ErrState)
	}
	defer v.done(id)
	item, err := v.Get(ctx, id)
	if err == nil && item.phase != phaseHeld {
		err = fmt.Errorf("%w: its state is %s", ErrState, item.State)
	}
	if err == nil {
		err = v.purge(ctx, &item)
	}
	if err != nil {
		return Item{}, fmt.Errorf("purging quarantine item %s: %w", id, err)
	}
	return item, nil
}

func (v *Vault) purge(ctx context.Context, item *Item) error {
	if err := v.move(ctx, item, phasePurged); err != nil {
		return err
	}
	v.step("purge: purged")
	return v.release(ctx, item.Object)
}

// Expire purges the held items whose time is over and forgets the records of
// items that were restored or purged longer than the retention time ago. It
// returns the items it purged.
func (v *Vault) Expire(ctx context.Context, now time.Time) ([]Item, error) {
	items, err := v.query(ctx, "phase = '"+phaseHeld+"' AND expires <= ? ORDER BY id", now.Unix())
	if err != nil {
		return nil, fmt.Errorf("expiring quarantine items: %w", err)
	}
	var purged []Item
	var errs []error
	for i := range items {
		if !v.take(items[i].ID) {
			continue
		}
		err := v.purge(ctx, &items[i])
		v.done(items[i].ID)
		if err == nil {
			purged = append(purged, items[i])
		} else if !errors.Is(err, ErrState) { // somebody restored it meanwhile
			errs = append(errs, fmt.Errorf("expiring quarantine item %s: %w", items[i].ID, err))
		}
	}
	_, err = v.db.ExecContext(ctx, "DELETE FROM item WHERE ended > 0 AND ended <= ?", now.Add(-v.config.Retention).Unix())
	if err != nil {
		errs = append(errs, fmt.Errorf("forgetting old quarantine records: %w", sqlite.Classify(err)))
	}
	return purged, errors.Join(errs...)
}
