package sqlite

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

var migrations = fstest.MapFS{"00001_first.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB);\n")}}

func TestOpenMigratesAndKeeps(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "dir with space?", "x.db")
	for i := range 2 { // the second opening finds the first one's row
		db, err := Open(ctx, path, Options{Durable: true, Migrations: migrations})
		require.NoError(t, err)
		var n int
		require.NoError(t, db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n))
		require.Equal(t, i, n)
		_, err = db.ExecContext(ctx, "INSERT INTO t (v) VALUES (x'00')")
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestOpenFindsDamage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(ctx, path, Options{Migrations: migrations})
	require.NoError(t, err)
	for range 200 {
		_, err = db.ExecContext(ctx, "INSERT INTO t (v) VALUES (randomblob(4000))")
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	garbage := make([]byte, 4096)
	for i := range garbage {
		garbage[i] = 0xa5
	}
	for off := int64(4096); off < info.Size(); off += 3 * 4096 {
		_, err = f.WriteAt(garbage, off)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())

	_, err = Open(ctx, path, Options{Migrations: migrations})
	require.ErrorIs(t, err, ErrCorrupt)
	aside, err := SetAside(path)
	require.NoError(t, err)
	require.FileExists(t, aside)
	db, err = Open(ctx, path, Options{Migrations: migrations})
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

func TestClassifyFull(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db, err := Open(ctx, filepath.Join(t.TempDir(), "x.db"), Options{Migrations: migrations})
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1) // the limit belongs to the connection
	_, err = db.ExecContext(ctx, "PRAGMA max_page_count = 20")
	require.NoError(t, err)
	_, err = db.ExecContext(ctx, "INSERT INTO t (v) VALUES (randomblob(1000000))")
	require.ErrorIs(t, Classify(err), ErrFull)
	require.NotErrorIs(t, Classify(err), ErrCorrupt)
	_, err = db.ExecContext(ctx, "INSERT INTO t (v) VALUES (x'00')")
	require.NoError(t, err, "the database goes on")
}
