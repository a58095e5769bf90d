package response

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lazaret/lazaret/internal/response/seal"
	"github.com/lazaret/lazaret/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// VaultConfig of a Vault.
type VaultConfig struct {
	// Dir holds vault.db, vault.key and the directory vault with the content.
	Dir string
	// Node is this host's name in items.
	Node string
	// Retention is how long an item is held before it expires; 0 means 90 days.
	Retention time.Duration
	// Reserve is how many bytes stay free on the vault's file system; 0 means 64
	// MiB, a negative number none. A file that does not fit is not taken.
	Reserve int64
	Logger  *slog.Logger
}

// Vault keeps quarantined files encrypted on disk. Content is stored once per
// object, however many items have it. It is safe for concurrent use by one
// process.
type Vault struct {
	config VaultConfig
	blobs  string // directory
	key    *[seal.KeySize]byte
	db     *sql.DB

	step  func(string) // tests crash here
	named bool         // tests restore as if there were no unnamed files

	// mu makes "is this object referred to" and "make or delete its blob" one
	// step. live holds the items that are being worked on: recovery and retention
	// leave them alone.
	mu   sync.Mutex
	live map[string]bool
}

// OpenVault opens or creates the vault in c.Dir. The caller calls Recover
// before anything else, and Close at the end. Items without the key that
// encrypted them are an error: a new key would make them unreadable.
func OpenVault(ctx context.Context, c VaultConfig) (*Vault, error) {
	if c.Retention <= 0 {
		c.Retention = 90 * 24 * time.Hour
	}
	if c.Reserve == 0 {
		c.Reserve = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	v := &Vault{
		config: c, blobs: filepath.Join(c.Dir, "vault"),
		step: func(string) {}, live: map[string]bool{},
	}
	if err := os.MkdirAll(v.blobs, 0o700); err != nil {
		return nil, fmt.Errorf("opening vault: %w", err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if v.db, err = sqlite.Open(ctx, filepath.Join(c.Dir, "vault.db"), sqlite.Options{Durable: true, Migrations: files}); err != nil {
		return nil, fmt.Errorf("opening vault: %w", err)
	}
	v.db.SetMaxOpenConns(1)
	var items int
	if err = v.db.QueryRowContext(ctx, "SELECT count(*) FROM item WHERE ended = 0").Scan(&items); err == nil {
		v.key, err = loadKey(filepath.Join(c.Dir, "vault.key"), items == 0)
	}
	if err != nil {
		v.db.Close()
		return nil, fmt.Errorf("opening vault: %w", err)
	}
	return v, nil
}

// Close closes the database. Operations under way fail.
func (v *Vault) Close() error { return v.db.Close() }

// Get returns an item.
func (v *Vault) Get(ctx context.Context, id string) (Item, error) {
	return v.one(ctx, "id = ?", id)
}

// ByFinding returns the newest item that is held for a finding.
func (v *Vault) ByFinding(ctx context.Context, finding string) (Item, error) {
	return v.one(ctx, "finding = ? AND phase = '"+phaseHeld+"' ORDER BY id DESC LIMIT 1", finding)
}

// List returns up to limit items, newest first, that are older than cursor,
// and the cursor of the next page, empty at the end. limit is 1 to 1000.
func (v *Vault) List(ctx context.Context, cursor string, limit int) ([]Item, string, error) {
	limit = min(max(limit, 1), 1000)
	where, args := "phase <> '"+phaseDeleting+"' AND (? = '' OR id < ?) ORDER BY id DESC LIMIT ?", []any{cursor, cursor, limit + 1}
	items, err := v.query(ctx, where, args...)
	if err != nil {
		return nil, "", err
	}
	if len(items) <= limit {
		return items, "", nil
	}
	return items[:limit], items[limit-1].ID, nil
}

func (v *Vault) one(ctx context.Context, where string, args ...any) (Item, error) {
	items, err := v.query(ctx, where, args...)
	if err != nil {
		return Item{}, err
	}
	if len(items) == 0 {
		return Item{}, ErrNoItem
	}
	return items[0], nil
}

func (v *Vault) query(ctx context.Context, where string, args ...any) ([]Item, error) {
	rows, err := v.db.QueryContext(ctx, "SELECT phase, record FROM item WHERE "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading quarantine items: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	var items []Item
	for rows.Next() {
		var item Item
		var record []byte
		if err := rows.Scan(&item.phase, &record); err != nil {
			return nil, fmt.Errorf("reading quarantine items: %w", sqlite.Classify(err))
		}
		if err := json.Unmarshal(record, &item); err != nil {
			return nil, fmt.Errorf("reading quarantine items: %w", err)
		}
		item.State = apiState(item.phase)
		items = append(items, item)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading quarantine items: %w", sqlite.Classify(err))
	}
	return items, nil
}

// insert stores a new item durably and makes it live; the caller calls done.
func (v *Vault) insert(ctx context.Context, item *Item) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	item.State = apiState(item.phase)
	record, err := json.Marshal(item)
	if err != nil {
		return fmt.Errorf("recording quarantine item: %w", err)
	}
	_, err = v.db.ExecContext(ctx,
		"INSERT INTO item (id, phase, object, finding, expires, ended, record) VALUES (?, ?, ?, ?, ?, 0, ?)",
		item.ID, item.phase, item.Object[:], item.Finding, item.Expires.Unix(), record)
	if err != nil {
		return fmt.Errorf("recording quarantine item: %w", noSpace(err))
	}
	v.live[item.ID] = true
	return nil
}

// move writes the item with a new phase; it fails with ErrState if the item is
// not in the phase it was read in.
func (v *Vault) move(ctx context.Context, item *Item, to string) error {
	from := item.phase
	var ended int64
	if to == phaseRestored || to == phasePurged {
		ended = time.Now().Unix()
	}
	item.State = apiState(to)
	record, err := json.Marshal(item)
	if err != nil {
		return fmt.Errorf("recording quarantine item %s: %w", item.ID, err)
	}
	r, err := v.db.ExecContext(ctx, "UPDATE item SET phase = ?, ended = ?, expires = ?, record = ? WHERE id = ? AND phase = ?",
		to, ended, item.Expires.Unix(), record, item.ID, from)
	if err != nil {
		return fmt.Errorf("recording quarantine item %s: %w", item.ID, noSpace(err))
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%w: item %s is not %s any more", ErrState, item.ID, from), err)
	}
	item.phase = to
	return nil
}

// drop deletes an item's record and the blob if nothing else refers to it.
func (v *Vault) drop(ctx context.Context, item *Item) error {
	if _, err := v.db.ExecContext(ctx, "DELETE FROM item WHERE id = ?", item.ID); err != nil {
		return fmt.Errorf("deleting quarantine item %s: %w", item.ID, noSpace(err))
	}
	return v.release(ctx, item.Object)
}

// take makes an item live; it reports false if somebody works on it already.
func (v *Vault) take(id string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.live[id] {
		return false
	}
	v.live[id] = true
	return true
}

func (v *Vault) done(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.live, id)
}
