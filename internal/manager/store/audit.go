package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/lazaret/lazaret/api"
)

// maxDetail bounds an audit entry's detail; the log takes at most 60 KiB.
const maxDetail = 16 << 10

// Audit puts an entry into the outbox of the audit log, with its final index
// and the time of the change. It becomes part of the log exactly if the change
// is committed.
func (t *Tx) Audit(ctx context.Context, e api.AuditEntry) error {
	err := t.q.QueryRowContext(ctx, "UPDATE counter SET value = value + 1 WHERE name = 'audit' RETURNING value - 1").Scan(&e.Index)
	if err != nil {
		return fmt.Errorf("numbering audit entry: %w", err)
	}
	e.Time = t.Now
	e.Reason, e.Target, e.Actor, e.From = clip(e.Reason), clip(e.Target), clip(e.Actor), clip(e.From)
	if len(e.Detail) > maxDetail {
		e.Detail = json.RawMessage(fmt.Sprintf(`{"omitted_bytes":%d}`, len(e.Detail)))
	}
	b, err := encode("audit entry", e)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, "storing audit entry", "INSERT INTO audit_outbox (idx, body) VALUES (?, ?)", e.Index, b)
	return err
}

// clip bounds a text of an entry; JSON escaping may make it six times longer.
func clip(s string) string {
	const limit = 1024
	if len(s) > limit {
		return s[:limit]
	}
	return s
}

// NextAudit returns the index the next entry will get.
func (r Reader) NextAudit(ctx context.Context) (n int64, err error) {
	if err = r.q.QueryRowContext(ctx, "SELECT value FROM counter WHERE name = 'audit'").Scan(&n); err != nil {
		return 0, fmt.Errorf("reading audit counter: %w", err)
	}
	return n, nil
}

// SkipAudit moves the counter forward to n, for a database that was restored
// from a backup older than the audit log.
func (t *Tx) SkipAudit(ctx context.Context, n int64) error {
	if _, err := t.exec(ctx, "emptying audit outbox", "DELETE FROM audit_outbox WHERE idx < ?", n); err != nil {
		return err
	}
	return t.change(ctx, "audit counter", "UPDATE counter SET value = max(value, ?) WHERE name = 'audit'", n)
}

// Outbox is the audit log's source of entries.
type Outbox struct{ s *Store }

// Outbox returns the store's outbox.
func (s *Store) Outbox() Outbox { return Outbox{s} }

// Pending returns at most n waiting entries in order and the first one's index.
func (o Outbox) Pending(ctx context.Context, n int) (first int64, entries [][]byte, err error) {
	_, err = rows(ctx, o.s.q, "reading audit outbox", func(r *sql.Rows) (struct{}, error) {
		var idx int64
		var b []byte
		if err := r.Scan(&idx, &b); err != nil {
			return struct{}{}, err
		}
		if len(entries) == 0 {
			first = idx
		} else if idx != first+int64(len(entries)) {
			return struct{}{}, fmt.Errorf("audit outbox has a gap before entry %d", idx)
		}
		entries = append(entries, b)
		return struct{}{}, nil
	}, "SELECT idx, body FROM audit_outbox ORDER BY idx LIMIT ?", n)
	return first, entries, err
}

// Done deletes waiting entries with an index below size. It wakes nobody.
func (o Outbox) Done(ctx context.Context, size int64) error {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	if _, err := o.s.db.ExecContext(ctx, "DELETE FROM audit_outbox WHERE idx < ?", size); err != nil {
		return fmt.Errorf("emptying audit outbox: %w", err)
	}
	return nil
}
