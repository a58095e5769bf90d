package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/api"
)

// Kinds of tokens.
const (
	TokenUser    = "user"    // API token of a user
	TokenNode    = "node"    // identity of a node
	TokenSession = "session" // cookie of a browser
)

// TokenRecord is a token without its secret.
type TokenRecord struct {
	api.Token // User is the owner: a user's or a node's name
	Kind      string
}

// AddToken stores a token under the hash of its secret.
func (t *Tx) AddToken(ctx context.Context, k TokenRecord, hash [32]byte) error {
	_, err := t.exec(ctx, "storing token", "INSERT INTO token (id, kind, hash, name, owner, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
		k.ID, k.Kind, hash[:], k.Name, k.User, t.Now.UnixNano(), k.Expires.UnixNano())
	return err
}

// DeleteToken removes a token of owner; an empty owner means anybody's.
func (t *Tx) DeleteToken(ctx context.Context, kind, owner, id string) error {
	return t.change(ctx, "token "+id, "DELETE FROM token WHERE kind = ?1 AND id = ?2 AND (?3 = '' OR owner = ?3)", kind, id, owner)
}

// DeleteTokens removes all tokens of a kind and owner.
func (t *Tx) DeleteTokens(ctx context.Context, kind, owner string) error {
	_, err := t.exec(ctx, "deleting tokens", "DELETE FROM token WHERE kind = ? AND owner = ?", kind, owner)
	return err
}

func scanToken(r *sql.Rows) (k TokenRecord, err error) {
	var created, expires int64
	err = r.Scan(&k.ID, &k.Kind, &k.Name, &k.User, &created, &expires)
	k.Created, k.Expires = time.Unix(0, created).UTC(), time.Unix(0, expires).UTC()
	return k, err
}

// TokenByHash returns the token with that secret unless it expired.
func (r Reader) TokenByHash(ctx context.Context, hash [32]byte, now time.Time) (TokenRecord, error) {
	list, err := rows(ctx, r.q, "reading token", scanToken,
		"SELECT id, kind, name, owner, created, expires FROM token WHERE hash = ? AND expires > ?", hash[:], now.UnixNano())
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("token: %w", ErrNotFound)
	}
	if err != nil {
		return TokenRecord{}, err
	}
	return list[0], nil
}

// Tokens returns the tokens of a kind and owner, oldest first.
func (r Reader) Tokens(ctx context.Context, kind, owner string) ([]TokenRecord, error) {
	return rows(ctx, r.q, "listing tokens", scanToken,
		"SELECT id, kind, name, owner, created, expires FROM token WHERE kind = ? AND owner = ? ORDER BY id", kind, owner)
}
