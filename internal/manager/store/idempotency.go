package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrKeyReused says that an idempotency key was used for another request.
var ErrKeyReused = errors.New("idempotency key was used for another request")

// Repeated returns the answer given earlier to the same request under the same
// key, nil if the key is new.
func (r Reader) Repeated(ctx context.Context, actor, key string, request [32]byte) (json.RawMessage, error) {
	var before, answer []byte
	err := r.q.QueryRowContext(ctx, "SELECT request, answer FROM idempotency WHERE actor = ? AND key = ?", actor, key).Scan(&before, &answer)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading idempotency key: %w", err)
	case string(before) != string(request[:]):
		return nil, ErrKeyReused
	}
	return answer, nil
}

// Remember stores the answer of a request under its key.
func (t *Tx) Remember(ctx context.Context, actor, key string, request [32]byte, answer any) error {
	b, err := encode("answer", answer)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, "storing idempotency key", "INSERT INTO idempotency (actor, key, request, answer, created) VALUES (?, ?, ?, ?, ?)",
		actor, key, request[:], b, t.Now.UnixNano())
	return err
}
