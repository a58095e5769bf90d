// Package sqlite opens the project's embedded databases: one file per owner,
// write-ahead log, goose migrations, and a check that turns a corrupted file
// into a clear error instead of wrong answers.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrCorrupt says the database file is damaged. A cache may be moved aside and
// made anew; a store of record must be restored from backup, never replaced.
var ErrCorrupt = errors.New("database file is damaged")

// ErrFull says the file system has no room for the change. The database is as
// before; the change can be repeated when there is room.
var ErrFull = errors.New("file system is full")

// Options says how a database is opened.
type Options struct {
	// Durable makes every commit survive a power cut (synchronous=FULL). Without
	// it a commit survives kill -9 but the last ones may be lost with the power.
	Durable bool
	// SkipCheck leaves out the check of the whole file at opening. Only for
	// caches whose rows carry checksums.
	SkipCheck bool
	// Migrations are goose SQL files at the root of the file system.
	Migrations fs.FS
}

// Open opens or creates the database at path (mode 0600) and migrates it. It
// returns an error wrapping ErrCorrupt if the file is damaged. The caller
// closes the result.
func Open(ctx context.Context, path string, o Options) (*sql.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("opening database %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("opening database %s: %w", path, err)
	}
	sync := "NORMAL"
	if o.Durable {
		sync = "FULL"
	}
	q := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(" + sync + ")",
		"foreign_keys(1)", "temp_store(MEMORY)",
	}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("opening database %s: %w", path, err)
	}
	if err := prepare(ctx, db, o); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening database %s: %w", path, Classify(err))
	}
	return db, nil
}

func prepare(ctx context.Context, db *sql.DB, o Options) error {
	if !o.SkipCheck {
		var answer string
		if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&answer); err != nil {
			return err
		}
		if answer != "ok" {
			return fmt.Errorf("%w: %s", ErrCorrupt, strings.TrimSpace(answer))
		}
	}
	if o.Migrations == nil {
		return nil
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, o.Migrations)
	if err != nil {
		return fmt.Errorf("reading migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	return nil
}

// Classify wraps SQLite's corruption errors in ErrCorrupt, those about a lack
// of space in ErrFull, and returns any other error unchanged.
func Classify(err error) error {
	var se *sqlite.Error
	if errors.As(err, &se) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFull) {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	return err
}

// SetAside renames a damaged database and its log files so that a new one can
// be made; it returns the new name. Only for caches.
func SetAside(path string) (string, error) {
	aside := path + ".damaged"
	for _, suffix := range []string{"-wal", "-shm", ""} {
		err := os.Rename(path+suffix, aside+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("setting aside %s: %w", path, err)
		}
	}
	return aside, nil
}
