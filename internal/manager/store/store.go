// Package store keeps the manager's records in SQLite: every acknowledged
// change is on disk, a change and its audit entry are one transaction, and a
// kill at any moment leaves the state before or after it. SQL is written by
// hand, one file per record.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/lazaret/lazaret/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Errors a caller turns into answers.
var (
	ErrNotFound     = errors.New("not found")
	ErrConflict     = errors.New("exists already")
	ErrPrecondition = errors.New("changed meanwhile")
)

// Store is the database. It is safe for concurrent use; changes run one after
// another.
type Store struct {
	Reader
	db *sql.DB
	mu sync.Mutex // one change at a time: waiting here is fair, waiting in SQLite is not

	watch    sync.Mutex
	watchers map[chan struct{}]struct{}
}

// Open opens or creates the database at path. An error wrapping
// sqlite.ErrCorrupt means it must be restored from a backup. Close closes it.
func Open(ctx context.Context, path string) (*Store, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Durable: true, Migrations: sub})
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	return &Store{Reader: Reader{q: db}, db: db, watchers: map[chan struct{}]struct{}{}}, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// Check asks the database to answer; an error says why it does not.
func (s *Store) Check(ctx context.Context) error {
	var n int
	return sqlite.Classify(s.db.QueryRowContext(ctx, "SELECT 1 FROM counter LIMIT 1").Scan(&n))
}

// querier is what reading needs from *sql.DB and *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Reader reads records, of the newest state (Store) or inside a change (Tx).
type Reader struct{ q querier }

// Tx is one change.
type Tx struct {
	Reader
	tx *sql.Tx
	// Now is the time of the change, UTC.
	Now time.Time
}

// Update runs f as one transaction: everything f wrote is on disk when Update
// returns nil and nothing of it otherwise. f must not keep the Tx.
func (s *Store) Update(ctx context.Context, f func(*Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning change: %w", sqlite.Classify(err))
	}
	defer tx.Rollback()
	if err := f(&Tx{Reader: Reader{q: tx}, tx: tx, Now: time.Now().UTC()}); err != nil {
		return sqlite.Classify(err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing change: %w", sqlite.Classify(err))
	}
	s.notify()
	return nil
}

// Watch returns a channel that gets a value after every change (several may
// melt into one) and a function that ends it.
func (s *Store) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.watch.Lock()
	defer s.watch.Unlock()
	s.watchers[c] = struct{}{}
	return c, func() {
		s.watch.Lock()
		defer s.watch.Unlock()
		delete(s.watchers, c)
	}
}

func (s *Store) notify() {
	s.watch.Lock()
	defer s.watch.Unlock()
	for c := range s.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (t *Tx) exec(ctx context.Context, what, query string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return n, nil
}

// change is exec for statements that must hit a row.
func (t *Tx) change(ctx context.Context, what, query string, args ...any) error {
	n, err := t.exec(ctx, what, query, args...)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return err
}

// Page bounds a list: at most Limit records after the record called After.
type Page struct {
	After string
	Limit int
}

func (p Page) limit() int {
	if p.Limit <= 0 || p.Limit > 1000 {
		return 100
	}
	return p.Limit
}

// rows collects what scan reads from every row.
func rows[T any](ctx context.Context, q querier, what string, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	out := []T{}
	r, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, sqlite.Classify(err))
	}
	defer r.Close()
	for r.Next() {
		x, err := scan(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out = append(out, x)
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, sqlite.Classify(err))
	}
	return out, nil
}

// body is a scan function for queries that select only a JSON body.
func body[T any](r *sql.Rows) (T, error) {
	var b []byte
	var x T
	if err := r.Scan(&b); err != nil {
		return x, err
	}
	return x, json.Unmarshal(b, &x)
}

// one reads a JSON body; no row is ErrNotFound.
func one[T any](ctx context.Context, q querier, what, query string, args ...any) (T, error) {
	list, err := rows(ctx, q, what, body[T], query, args...)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if err != nil {
		return *new(T), err
	}
	return list[0], nil
}

func encode(what string, v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", what, err)
	}
	return string(b), nil
}

// next cuts a list read with one record too many and returns the cursor.
func next[T any](list []T, limit int, id func(T) string) ([]T, string) {
	if len(list) <= limit {
		return list, ""
	}
	return list[:limit], id(list[limit-1])
}
