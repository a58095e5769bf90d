// Package spool keeps what a node has to tell its manager until the manager
// has acknowledged it, and the findings that are still open on this node. What
// Record and the Add functions have returned for survives kill -9 and power loss.
package spool

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Spool is safe for concurrent use.
type Spool struct {
	db *sql.DB
	// id names this database in batch ids: one made anew counts from the start,
	// and its batches are newer all the same.
	id string
	// more wakes the uploader; it never holds more than one token.
	more    chan struct{}
	maxOpen int
}

// Open opens or creates spool.db in dir. The caller closes it.
func Open(ctx context.Context, dir string) (*Spool, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, "spool.db"), sqlite.Options{Durable: true, Migrations: files})
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer: no lock to wait for
	s := &Spool{db: db, more: make(chan struct{}, 1), maxOpen: maxOpen}
	if s.id, err = s.identity(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *Spool) identity(ctx context.Context) (string, error) {
	const key = "spool"
	if v, ok, err := s.Setting(ctx, key); err != nil || ok {
		return string(v), err
	}
	id := ulid.Make().String()
	return id, s.SetSetting(ctx, key, []byte(id))
}

// Close closes the database.
func (s *Spool) Close() error { return s.db.Close() }

// More receives a token when there is something to upload.
func (s *Spool) More() <-chan struct{} { return s.more }

func (s *Spool) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// findingKey is what makes two detections the same finding: the same object at
// the same place of the same workload.
func findingKey(f *threat.Finding) string {
	return f.Workload.ID + "\x00" + f.Location.Path + "\x00" + f.Object.String()
}

// maxOpen is how many findings one workload may have open. What it causes
// beyond that are occurrences of one more finding: a container that makes
// malicious files for ever must not fill the disk of the node.
const maxOpen = 10_000

// crowdKey is the key of that finding.
func crowdKey(f *threat.Finding) string { return f.Workload.ID + "\x00" }

// Record stores a finding durably and queues it for upload. If the same
// finding is open already, it becomes a further occurrence of that one: f gets
// its id, first time and decisions, and its count grows; known tells so. Until
// it is updated it counts as not acted upon.
func (s *Spool) Record(ctx context.Context, f *threat.Finding) (known bool, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("recording finding: %w", err)
	}
	defer tx.Rollback()
	key, payload, err := s.find(ctx, tx, f)
	switch {
	case err == nil:
		var old threat.Finding
		if err := json.Unmarshal(payload, &old); err != nil {
			return false, fmt.Errorf("recording finding: %w", err)
		}
		known = true
		merge(f, &old)
	case errors.Is(err, sql.ErrNoRows):
		if f.ID == "" {
			f.ID = ulid.Make().String()
		}
		f.Count = max(f.Count, 1)
	default:
		return false, fmt.Errorf("recording finding: %w", err)
	}
	if err := put(ctx, tx, key, f, true); err != nil {
		return false, fmt.Errorf("recording finding: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("recording finding: %w", err)
	}
	s.wake()
	return known, nil
}

// find returns the stored finding that f is an occurrence of, or the key for a
// new one with sql.ErrNoRows.
func (s *Spool) find(ctx context.Context, tx *sql.Tx, f *threat.Finding) (key string, payload []byte, err error) {
	const read = "SELECT payload FROM finding WHERE key = ?"
	key = findingKey(f)
	if err = tx.QueryRowContext(ctx, read, key).Scan(&payload); !errors.Is(err, sql.ErrNoRows) {
		return key, payload, err
	}
	var open int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM finding WHERE key > ? AND key < ? LIMIT ?)",
		f.Workload.ID+"\x00", f.Workload.ID+"\x01", s.maxOpen).Scan(&open); err != nil {
		return key, nil, err
	}
	if open >= s.maxOpen {
		key = crowdKey(f)
	}
	return key, payload, tx.QueryRowContext(ctx, read, key).Scan(&payload)
}

func merge(f, old *threat.Finding) {
	f.ID, f.Time, f.Count = old.ID, old.Time, old.Count+max(f.Count, 1)
	f.Decisions = append(old.Decisions, f.Decisions...)
	if f.VaultID == "" {
		f.VaultID = old.VaultID
	}
	if f.Process == nil { // it had ended; the one before says more than nothing
		f.Process = old.Process
	}
	if f.State == threat.Open {
		f.State = old.State
	}
}

// Update stores a newer version of a finding that Record has stored.
func (s *Spool) Update(ctx context.Context, f *threat.Finding) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("updating finding: %w", err)
	}
	defer tx.Rollback()
	if f.State == threat.Resolved || f.State == threat.Dismissed {
		if _, err := tx.ExecContext(ctx, "DELETE FROM finding WHERE id = ?", f.ID); err != nil {
			return fmt.Errorf("updating finding: %w", err)
		}
		if err := enqueue(ctx, tx, "finding", f.ID, f); err != nil {
			return err
		}
	} else if err := update(ctx, tx, f); err != nil {
		return fmt.Errorf("updating finding: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("updating finding: %w", err)
	}
	s.wake()
	return nil
}

// Forget makes a later occurrence of a finding a new one: a person closed it.
func (s *Spool) Forget(ctx context.Context, id string) error {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM finding WHERE id = ?", id); err != nil {
		return fmt.Errorf("forgetting finding %s: %w", id, err)
	}
	return nil
}

// Finding returns the open finding with that id.
func (s *Spool) Finding(ctx context.Context, id string) (threat.Finding, bool, error) {
	var f threat.Finding
	var payload []byte
	err := s.db.QueryRowContext(ctx, "SELECT payload FROM finding WHERE id = ?", id).Scan(&payload)
	if errors.Is(err, sql.ErrNoRows) {
		return f, false, nil
	}
	if err == nil {
		err = json.Unmarshal(payload, &f)
	}
	if err != nil {
		return f, false, fmt.Errorf("reading finding %s: %w", id, err)
	}
	return f, true, nil
}

// update stores a finding under the key it was recorded with.
func update(ctx context.Context, tx *sql.Tx, f *threat.Finding) error {
	key := findingKey(f)
	err := tx.QueryRowContext(ctx, "SELECT key FROM finding WHERE id = ?", f.ID).Scan(&key)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return put(ctx, tx, key, f, false)
}

// put stores a finding; pending says that it is still to be acted upon.
func put(ctx context.Context, tx *sql.Tx, key string, f *threat.Finding, pending bool) error {
	payload, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO finding (key, id, payload, pending) VALUES (?, ?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET payload = excluded.payload, id = excluded.id, pending = excluded.pending`,
		key, f.ID, payload, pending); err != nil {
		return err
	}
	return enqueue(ctx, tx, "finding", f.ID, f)
}

// Interrupted changes and stores all findings that were recorded and never
// updated: a crash came before anything was done about them. It is called
// before the first Record.
func (s *Spool) Interrupted(ctx context.Context, change func(*threat.Finding)) (n int, err error) {
	for {
		some, err := s.interrupted(ctx, change)
		n += some
		if err != nil || some == 0 {
			return n, err
		}
	}
}

// interrupted does so for some hundred of them in one transaction.
func (s *Spool) interrupted(ctx context.Context, change func(*threat.Finding)) (int, error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("looking for unfinished findings: %w", err) }
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fail(err)
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(ctx, "SELECT payload FROM finding WHERE pending LIMIT 500")
	if err != nil {
		return fail(err)
	}
	defer rows.Close()
	var all []threat.Finding
	for rows.Next() {
		var payload []byte
		if err := rows.Scan(&payload); err != nil {
			return fail(err)
		}
		if err := appendTo(&all, payload); err != nil {
			return fail(err)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fail(err)
	}
	for i := range all {
		change(&all[i])
		if err := update(ctx, tx, &all[i]); err != nil {
			return fail(err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fail(err)
	}
	s.wake()
	return len(all), nil
}

// enqueue replaces an older version that was not uploaded yet and takes a new
// sequence number, so that an acknowledgement of the older one does not drop it.
func enqueue(ctx context.Context, tx *sql.Tx, kind, id string, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("queueing %s: %w", kind, err)
	}
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO outbox (kind, id, payload) VALUES (?, ?, ?)", kind, id, payload); err != nil {
		return fmt.Errorf("queueing %s: %w", kind, err)
	}
	return nil
}

// AddItem queues a quarantine item; a newer version replaces one that was not
// uploaded yet, here and in AddResult and AddScan.
func (s *Spool) AddItem(ctx context.Context, i api.QuarantineItem) error {
	return s.add(ctx, "item", i.ID, i)
}

// AddResult queues the result of a command and remembers that the command was
// carried out.
func (s *Spool) AddResult(ctx context.Context, r api.CommandResult) error {
	return s.add(ctx, "result", r.Command, r)
}

// AddScan queues a scan's progress.
func (s *Spool) AddScan(ctx context.Context, sc api.Scan) error { return s.add(ctx, "scan", sc.ID, sc) }

func (s *Spool) add(ctx context.Context, kind, id string, v any) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("queueing %s: %w", kind, err)
	}
	defer tx.Rollback()
	if err := enqueue(ctx, tx, kind, id, v); err != nil {
		return err
	}
	if kind == "result" {
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO setting (key, value) VALUES (?, x'')", answeredKey+id); err != nil {
			return fmt.Errorf("queueing %s: %w", kind, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("queueing %s: %w", kind, err)
	}
	s.wake()
	return nil
}

const answeredKey = "command/"

// Answered reports whether a command was carried out already: commands are
// delivered at least once.
func (s *Spool) Answered(ctx context.Context, command string) (bool, error) {
	_, ok, err := s.Setting(ctx, answeredKey+command)
	return ok, err
}

// maxBatch bounds the payload of a batch, far below what a manager accepts.
const maxBatch = 8 << 20

// Next returns up to limit queued things as a batch, oldest first, and the
// sequence number to acknowledge. An empty batch has an empty ID. The same rows
// give the same batch ID, so a repeated upload is recognised; ids sort in the
// order of uploads.
func (s *Spool) Next(ctx context.Context, limit int) (api.Batch, int64, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT seq, kind, payload FROM outbox ORDER BY seq LIMIT ?", limit)
	if err != nil {
		return api.Batch{}, 0, fmt.Errorf("reading spool: %w", err)
	}
	defer rows.Close()
	b := api.Batch{Sent: time.Now().UTC()}
	var first, last int64
	size := 0
	for rows.Next() {
		var kind string
		var payload []byte
		var seq int64
		if err := rows.Scan(&seq, &kind, &payload); err != nil {
			return api.Batch{}, 0, fmt.Errorf("reading spool: %w", err)
		}
		if size += len(payload); first != 0 && size > maxBatch {
			break
		}
		last = seq
		if first == 0 {
			first = seq
		}
		if err := decode(&b, kind, payload); err != nil {
			return api.Batch{}, 0, fmt.Errorf("reading spool: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return api.Batch{}, 0, fmt.Errorf("reading spool: %w", err)
	}
	if first != 0 {
		b.ID = fmt.Sprintf("%s-%019d-%019d", s.id, last, first)
	}
	return b, last, nil
}

func decode(b *api.Batch, kind string, payload []byte) error {
	switch kind {
	case "finding":
		return appendTo(&b.Findings, payload)
	case "item":
		return appendTo(&b.Items, payload)
	case "result":
		return appendTo(&b.Results, payload)
	case "scan":
		return appendTo(&b.Scans, payload)
	}
	return fmt.Errorf("unknown kind %q", kind)
}

func appendTo[T any](to *[]T, payload []byte) error {
	var v T
	if err := json.Unmarshal(payload, &v); err != nil {
		return err
	}
	*to = append(*to, v)
	return nil
}

// Ack forgets what was uploaded, up to and including seq.
func (s *Spool) Ack(ctx context.Context, seq int64) error {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM outbox WHERE seq <= ?", seq); err != nil {
		return fmt.Errorf("acknowledging spool: %w", err)
	}
	return nil
}

// Setting returns a stored value, such as the configuration in force.
func (s *Spool) Setting(ctx context.Context, key string) ([]byte, bool, error) {
	var v []byte
	err := s.db.QueryRowContext(ctx, "SELECT value FROM setting WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading setting %s: %w", key, err)
	}
	return v, true, nil
}

// SetSetting stores a value durably.
func (s *Spool) SetSetting(ctx context.Context, key string, value []byte) error {
	if _, err := s.db.ExecContext(ctx, "INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)", key, value); err != nil {
		return fmt.Errorf("storing setting %s: %w", key, err)
	}
	return nil
}
