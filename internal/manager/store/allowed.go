package store

import (
	"context"
	"time"

	"github.com/lazaret/lazaret/api"
)

// Allow stores an object a person declared harmless; it replaces an earlier
// entry of the same object.
func (t *Tx) Allow(ctx context.Context, a api.AllowedObject) error {
	b, err := encode("allowed object", a)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, "allowing object", `INSERT INTO allowed (object, expires, body) VALUES (?, ?, ?)
		ON CONFLICT (object) DO UPDATE SET expires = excluded.expires, body = excluded.body`,
		a.Hash.String(), a.Expires.UnixNano(), b)
	return err
}

// Disallow removes an allowed object.
func (t *Tx) Disallow(ctx context.Context, object string) error {
	return t.change(ctx, "allowed object "+object, "DELETE FROM allowed WHERE object = ?", object)
}

// Allowed returns the allowed objects that have not expired, by hash.
func (r Reader) Allowed(ctx context.Context, now time.Time) ([]api.AllowedObject, error) {
	return rows(ctx, r.q, "listing allowed objects", body[api.AllowedObject],
		"SELECT body FROM allowed WHERE expires > ? ORDER BY object", now.UnixNano())
}
