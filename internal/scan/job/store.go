package job

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

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// store is the database of the jobs, a store of record: what a commit returned
// for is there after a power cut.
type store struct{ db *sql.DB }

func openStore(ctx context.Context, dir string) (*store, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, "jobs.db"), sqlite.Options{Durable: true, Migrations: files})
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer: no lock to wait for
	return &store{db: db}, nil
}

// record is a row of scan.
type record struct {
	api.Scan
	seq    int64
	lane   string
	cursor scan.Cursor
	lines  int64
}

const columns = "seq, id, request, state, lane, error, started, finished, cursor, summary, lines"

func read(row interface{ Scan(...any) error }) (*record, error) {
	var (
		r                        record
		request, cursor, summary []byte
		started                  int64
		finished                 sql.NullInt64
	)
	err := row.Scan(&r.seq, &r.ID, &request, &r.State, &r.lane, &r.Error, &started, &finished, &cursor, &summary, &r.lines)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading scan: %w", sqlite.Classify(err))
	}
	r.Started = time.Unix(0, started).UTC()
	if finished.Valid {
		t := time.Unix(0, finished.Int64).UTC()
		r.Finished = &t
	}
	if err := json.Unmarshal(request, &r.Request); err != nil {
		return nil, fmt.Errorf("reading scan %s: %w", r.ID, err)
	}
	if err := json.Unmarshal(summary, &r.Summary); err != nil {
		return nil, fmt.Errorf("reading scan %s: %w", r.ID, err)
	}
	if cursor != nil {
		if err := json.Unmarshal(cursor, &r.cursor); err != nil {
			return nil, fmt.Errorf("reading scan %s: %w", r.ID, err)
		}
	}
	return &r, nil
}

// add stores a new scan; added is false if its id is there already.
func (s *store) add(ctx context.Context, r *record) (added bool, err error) {
	request, err := json.Marshal(r.Request)
	if err != nil {
		return false, fmt.Errorf("storing scan: %w", err)
	}
	res, err := s.db.ExecContext(ctx, `INSERT INTO scan (id, request, state, lane, started, summary) VALUES (?,?,?,?,?,'{}')
		ON CONFLICT (id) DO NOTHING`, r.ID, request, r.State, r.lane, r.Started.UnixNano())
	if err != nil {
		return false, fmt.Errorf("storing scan: %w", sqlite.Classify(err))
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func (s *store) get(ctx context.Context, id string) (*record, error) {
	return read(s.db.QueryRowContext(ctx, "SELECT "+columns+" FROM scan WHERE id = ?", id))
}

// next returns the first scan of a lane that is not finished and not held.
func (s *store) next(ctx context.Context, lane string, held func(id string) bool) (*record, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM scan WHERE lane = ? AND state IN ('queued', 'running') ORDER BY seq", lane)
	if err != nil {
		return nil, fmt.Errorf("reading scans: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	for rows.Next() {
		r, err := read(rows)
		if err != nil || !held(r.ID) {
			return r, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading scans: %w", sqlite.Classify(err))
	}
	return nil, ErrNotFound
}

// list returns scans that came before a sequence number, newest first.
func (s *store) list(ctx context.Context, before int64, limit int) (out []*record, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM scan WHERE seq < ? ORDER BY seq DESC LIMIT ?", before, limit)
	if err != nil {
		return nil, fmt.Errorf("reading scans: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	for rows.Next() {
		r, err := read(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading scans: %w", sqlite.Classify(err))
	}
	return out, nil
}

// save stores where a scan is together with the lines up to there: one
// transaction, so that after kill -9 nothing is missing and nothing twice.
func (s *store) save(ctx context.Context, r *record, lines []api.ScanLine) error {
	cursor, err := json.Marshal(r.cursor)
	if err != nil {
		return fmt.Errorf("storing scan: %w", err)
	}
	summary, err := json.Marshal(r.Summary)
	if err != nil {
		return fmt.Errorf("storing scan: %w", err)
	}
	var finished any
	if r.Finished != nil {
		finished = r.Finished.UnixNano()
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("storing scan: %w", sqlite.Classify(err))
	}
	defer tx.Rollback()
	for i := range lines {
		b, err := json.Marshal(&lines[i])
		if err != nil {
			return fmt.Errorf("storing result: %w", err)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO result (scan, n, line) VALUES (?,?,?)", r.seq, r.lines+int64(i), b); err != nil {
			return fmt.Errorf("storing result: %w", sqlite.Classify(err))
		}
	}
	_, err = tx.ExecContext(ctx, "UPDATE scan SET state=?, error=?, finished=?, cursor=?, summary=?, lines=? WHERE seq=?",
		r.State, r.Error, finished, cursor, summary, r.lines+int64(len(lines)), r.seq)
	if err != nil {
		return fmt.Errorf("storing scan: %w", sqlite.Classify(err))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("storing scan: %w", sqlite.Classify(err))
	}
	r.lines += int64(len(lines))
	return nil
}

// results returns lines from number n on.
func (s *store) results(ctx context.Context, seq, n int64, limit int) (out []api.ScanLine, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT line FROM result WHERE scan = ? AND n >= ? ORDER BY n LIMIT ?", seq, n, limit)
	if err != nil {
		return nil, fmt.Errorf("reading results: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, fmt.Errorf("reading results: %w", sqlite.Classify(err))
		}
		var l api.ScanLine
		if err := json.Unmarshal(b, &l); err != nil {
			return nil, fmt.Errorf("reading results: %w", err)
		}
		out = append(out, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading results: %w", sqlite.Classify(err))
	}
	return out, nil
}

// prune deletes all but the newest finished scans.
func (s *store) prune(ctx context.Context, keep int) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM scan WHERE seq IN (SELECT seq FROM scan WHERE finished IS NOT NULL
		ORDER BY seq DESC LIMIT -1 OFFSET ?)`, keep)
	if err != nil {
		return fmt.Errorf("removing old scans: %w", sqlite.Classify(err))
	}
	return nil
}
