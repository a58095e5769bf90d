package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// keepEvents is how many events a reconnecting reader can catch up with.
const keepEvents = 10000

// EventRecord is one event of the stream.
type EventRecord struct {
	ID     int64
	Name   string
	Tenant string // empty: not about a tenant's workload
	Body   json.RawMessage
}

// Emit adds an event; readers get it after the change is committed.
func (t *Tx) Emit(ctx context.Context, name, tenant string, v any) error {
	b, err := encode("event", v)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "storing event", "INSERT INTO event (name, tenant, body) VALUES (?, ?, ?)", name, tenant, b); err != nil {
		return err
	}
	_, err = t.exec(ctx, "trimming events", "DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?", keepEvents)
	return err
}

// Events returns events after an id, in order, at most limit.
func (r Reader) Events(ctx context.Context, after int64, limit int) ([]EventRecord, error) {
	return rows(ctx, r.q, "listing events", func(r *sql.Rows) (e EventRecord, err error) {
		var b []byte
		err = r.Scan(&e.ID, &e.Name, &e.Tenant, &b)
		e.Body = b
		return e, err
	}, "SELECT id, name, tenant, body FROM event WHERE id > ? ORDER BY id LIMIT ?", after, limit)
}

// EventRange returns the ids of the oldest and the newest event that is kept;
// zeroes if there is none.
func (r Reader) EventRange(ctx context.Context) (oldest, newest int64, err error) {
	err = r.q.QueryRowContext(ctx, "SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM event").Scan(&oldest, &newest)
	if err != nil {
		return 0, 0, fmt.Errorf("reading events: %w", err)
	}
	return oldest, newest, nil
}
