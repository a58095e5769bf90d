package cache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

// maxLocations bounds one answer of the content index.
const maxLocations = 10_000

// Remember notes where an object was seen.
func (c *Cache) Remember(h threat.Hash, l threat.Location) {
	c.queue(op{kind: opLocation, rec: Record{Hash: h}, loc: l})
}

// Seen returns where an object was seen, as a file or as a member of one, at
// most 10,000 places.
func (c *Cache) Seen(ctx context.Context, h threat.Hash) ([]threat.Location, error) {
	c.flush(ctx)
	places, err := c.disk.seen(ctx, c.codec, h)
	if err != nil {
		c.trouble(ctx, err)
		return nil, err
	}
	return places, nil
}

// Workloads counts the workloads in which an object was seen.
func (c *Cache) Workloads(ctx context.Context, h threat.Hash) (int, error) {
	places, err := c.Seen(ctx, h)
	if err != nil {
		return 0, err
	}
	distinct := map[string]struct{}{}
	for i := range places {
		distinct[places[i].Workload] = struct{}{}
	}
	return len(distinct), nil
}

func (d *disk) seen(ctx context.Context, cd *codec, h threat.Hash) ([]threat.Location, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var id int64
	var out []threat.Location
	err := d.q.objectID.QueryRowContext(ctx, h[:]).Scan(&id)
	if err == nil {
		out, err = d.locations(ctx, id, "", nil)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("looking up locations: %w", sqlite.Classify(err))
	}
	type holder struct {
		id   int64
		hash []byte
	}
	var holders []holder
	rows, err := d.q.members.QueryContext(ctx, prefix(h), maxLocations)
	if err != nil {
		return nil, fmt.Errorf("looking up members: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	for rows.Next() {
		var x holder
		if err := rows.Scan(&x.id, &x.hash); err != nil {
			return nil, fmt.Errorf("looking up members: %w", err)
		}
		holders = append(holders, x)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, fmt.Errorf("looking up members: %w", sqlite.Classify(err))
	}
	for _, x := range holders {
		var r row
		var detail []byte
		if err := d.q.object.QueryRowContext(ctx, x.hash).Scan(append(r.columns(), &detail)...); err != nil {
			return nil, fmt.Errorf("looking up members: %w", sqlite.Classify(err))
		}
		if len(detail) == 0 {
			continue // inspected again since, and no archive any more
		}
		objects, err := cd.unpack(detail)
		if err != nil {
			return nil, fmt.Errorf("looking up members: %w: %w", sqlite.ErrCorrupt, err)
		}
		for i := 1; i < len(objects); i++ {
			if objects[i].Hash != h {
				continue
			}
			if out, err = d.locations(ctx, x.id, "!/"+objects[i].Member, out); err != nil {
				return nil, fmt.Errorf("looking up locations: %w", sqlite.Classify(err))
			}
		}
	}
	return out, nil
}

// locations appends the places of an object, with suffix added to their paths.
func (d *disk) locations(ctx context.Context, id int64, suffix string, out []threat.Location) ([]threat.Location, error) {
	rows, err := d.q.seen.QueryContext(ctx, id, maxLocations-len(out))
	if err != nil {
		return out, err
	}
	defer rows.Close()
	for rows.Next() {
		var l threat.Location
		if err := rows.Scan(&l.Workload, &l.Path, &l.Layer, &l.Image, &l.HostPath); err != nil {
			return out, err
		}
		l.Path += suffix
		out = append(out, l)
	}
	return out, rows.Err()
}

// Prune removes the oldest rows over the bounds; Run does it every hour.
func (c *Cache) Prune(ctx context.Context) {
	if err := c.disk.prune(ctx, c.cfg.MaxRows, time.Now().Add(-c.cfg.Retain).Unix()); err != nil {
		c.trouble(ctx, err)
	}
}

func (d *disk) prune(ctx context.Context, maxRows, oldest int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, s := range []struct {
		query string
		args  []any
	}{
		{`DELETE FROM location WHERE last < ?`, []any{oldest}},
		{`DELETE FROM location WHERE last <= (SELECT last FROM location ORDER BY last DESC LIMIT 1 OFFSET ?)`, []any{maxRows}},
		{`DELETE FROM inode_version WHERE seen <= (SELECT seen FROM inode_version ORDER BY seen DESC LIMIT 1 OFFSET ?)`, []any{maxRows}},
		{`DELETE FROM object WHERE id NOT IN (SELECT object FROM inode_version) AND id NOT IN (SELECT object FROM location)
			AND id <= (SELECT max(id) FROM object) - ?`, []any{maxRows / 4}},
		{`DELETE FROM member WHERE object NOT IN (SELECT id FROM object)`, nil},
	} {
		if _, err := d.db.ExecContext(ctx, s.query, s.args...); err != nil {
			return fmt.Errorf("pruning verdict cache: %w", sqlite.Classify(err))
		}
	}
	return nil
}
