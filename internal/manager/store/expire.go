package store

import (
	"context"
	"time"
)

// Retention of records that only serve a while.
const (
	keepKeys     = 24 * time.Hour      // idempotency keys
	keepBatches  = 30 * 24 * time.Hour // ids of batches
	keepCommands = 30 * 24 * time.Hour // answered commands
	keepScans    = 90 * 24 * time.Hour
)

// Expire deletes what only serves a while: expired tokens and allowed objects,
// old idempotency keys, batch ids, answered commands and finished scans. It
// tells whether an allowed object expired: nodes must hear of it.
func (t *Tx) Expire(ctx context.Context) (allowedChanged bool, err error) {
	now := t.Now.UnixNano()
	ago := func(d time.Duration) int64 { return t.Now.Add(-d).UnixNano() }
	// ULIDs begin with their time, so ids compare like times.
	ulid := func(d time.Duration) string { return ulidBefore(t.Now.Add(-d)) }
	for _, x := range []struct {
		query string
		arg   any
	}{
		{"DELETE FROM token WHERE expires <= ?", now},
		{"DELETE FROM idempotency WHERE created <= ?", ago(keepKeys)},
		{"DELETE FROM batch WHERE received <= ?", ago(keepBatches)},
		{"DELETE FROM command WHERE state != 'pending' AND id <= ?", ulid(keepCommands)},
		{"DELETE FROM scan WHERE state IN ('done', 'cancelled', 'failed') AND id <= ?", ulid(keepScans)},
	} {
		if _, err := t.exec(ctx, "deleting old records", x.query, x.arg); err != nil {
			return false, err
		}
	}
	n, err := t.exec(ctx, "deleting old records", "DELETE FROM allowed WHERE expires <= ?", now)
	return n > 0, err
}
