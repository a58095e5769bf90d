package cache

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

//go:embed migrations/*.sql
var migrations embed.FS

// disk is the database file. It is a cache: when it turns out to be damaged it
// is set aside and made anew.
type disk struct {
	path string

	mu sync.RWMutex // held for writing while the file is replaced
	db *sql.DB
	q  statements
}

type statements struct {
	block, object, objectID, seen, members               *sql.Stmt
	putObject, putName, putInode, putLocation, putMember *sql.Stmt
	forget                                               *sql.Stmt
}

func openDisk(ctx context.Context, path string) (*disk, error) {
	d := &disk{path: path}
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *disk) open(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("reading migrations: %w", err)
	}
	// Rows carry their own checksums, so the whole file is not read at start.
	db, err := sqlite.Open(ctx, d.path, sqlite.Options{Migrations: files, SkipCheck: true})
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(4)
	d.db, d.q = db, statements{}
	for _, s := range []struct {
		stmt  **sql.Stmt
		query string
	}{
		{&d.q.block, `SELECT i.ino, i.ctime, i.mtime, i.size, i.sum, o.hash, o.epoch, o.verdict, o.type, o.size, o.objects, o.limits, o.detail IS NOT NULL, o.sum
			FROM inode_version i JOIN object o ON o.id = i.object WHERE i.dev = ? AND i.ino BETWEEN ? AND ?`},
		{&d.q.object, `SELECT hash, epoch, verdict, type, size, objects, limits, detail IS NOT NULL, sum, detail FROM object WHERE hash = ?`},
		{&d.q.putObject, `INSERT INTO object (hash, epoch, verdict, type, size, objects, limits, detail, sum) VALUES (?,?,?,?,?,?,?,?,?)
			ON CONFLICT (hash) DO UPDATE SET epoch = excluded.epoch, verdict = excluded.verdict, type = excluded.type, size = excluded.size,
			objects = excluded.objects, limits = excluded.limits, detail = excluded.detail, sum = excluded.sum RETURNING id`},
		{&d.q.putName, `INSERT INTO object (hash, epoch, verdict, type, size, objects, limits, sum) VALUES (?,0,0,'',0,0,0,?)
			ON CONFLICT (hash) DO NOTHING`},
		{&d.q.objectID, `SELECT id FROM object WHERE hash = ?`},
		{&d.q.putInode, `INSERT OR REPLACE INTO inode_version (dev, ino, ctime, mtime, size, object, seen, sum) VALUES (?,?,?,?,?,?,?,?)`},
		{&d.q.forget, `DELETE FROM inode_version WHERE dev = ? AND ino = ?`},
		{&d.q.putLocation, `INSERT INTO location (object, workload, path, layer, image, host, first, last) VALUES (?,?,?,?,?,?,?,?)
			ON CONFLICT DO UPDATE SET last = excluded.last WHERE excluded.last > last + 3600`},
		{&d.q.putMember, `INSERT INTO member (prefix, object) VALUES (?,?) ON CONFLICT DO NOTHING`},
		{&d.q.seen, `SELECT workload, path, layer, image, host FROM location WHERE object = ? ORDER BY workload, path, layer LIMIT ?`},
		{&d.q.members, `SELECT o.id, o.hash FROM member m JOIN object o ON o.id = m.object WHERE m.prefix = ? LIMIT ?`},
	} {
		if *s.stmt, err = db.PrepareContext(ctx, s.query); err != nil {
			db.Close()
			return fmt.Errorf("preparing statement: %w", sqlite.Classify(err))
		}
	}
	return nil
}

func (d *disk) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.db.Close() // closes its statements too
}

// reset sets the damaged file aside and starts a new one.
func (d *disk) reset(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.db.Close(); err != nil && !errors.Is(sqlite.Classify(err), sqlite.ErrCorrupt) {
		return fmt.Errorf("closing damaged cache: %w", err)
	}
	if _, err := sqlite.SetAside(d.path); err != nil {
		return err
	}
	return d.open(ctx)
}

var errSum = fmt.Errorf("%w: a row's checksum is wrong", sqlite.ErrCorrupt)

// row reads the columns hash, epoch, verdict, type, size, objects, limits,
// detail IS NOT NULL, sum.
type row struct {
	hash    []byte
	epoch   int64
	verdict int64
	count   int64
	limits  int64
	sum     int64
	Record
}

func (r *row) columns() []any {
	return []any{&r.hash, &r.epoch, &r.verdict, &r.Type, &r.Size, &r.count, &r.limits, &r.Detail, &r.sum}
}

func (r *row) record() (Record, error) {
	if len(r.hash) != len(r.Hash) || r.epoch < 0 || r.verdict < 0 || r.verdict >= int64(len(verdicts)) ||
		r.count < 0 || r.limits < 0 || r.limits > math.MaxUint32 {
		return Record{}, errSum
	}
	copy(r.Hash[:], r.hash)
	r.Epoch, r.Verdict, r.Count, r.Limits = threat.Epoch(r.epoch), verdicts[r.verdict], int(r.count), uint32(r.limits)
	if int64(r.Record.sum()) != r.sum {
		return Record{}, errSum
	}
	return r.Record, nil
}

// block reads all inode versions of an inode range of a device.
func (d *disk) block(ctx context.Context, dev, from, to uint64, yield func(event.FileKey, Record)) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	rows, err := d.q.block.QueryContext(ctx, int64(dev), int64(from), int64(to))
	if err != nil {
		return fmt.Errorf("reading inode versions: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	var (
		r   row
		ino int64
		sum int64
	)
	k := event.FileKey{Dev: dev}
	into := append([]any{&ino, &k.CTime, &k.MTime, &k.Size, &sum}, r.columns()...)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("reading inode versions: %w: %w", sqlite.ErrCorrupt, err)
		}
		k.Ino = uint64(ino)
		rec, err := r.record()
		if err != nil {
			return err
		}
		if int64(keySum(k, rec.Hash)) != sum {
			return errSum
		}
		yield(k, rec)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading inode versions: %w", sqlite.Classify(err))
	}
	return nil
}

// object reads a record and, if it has any, the packed detail.
func (d *disk) object(ctx context.Context, h threat.Hash) (rec Record, detail []byte, ok bool, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var r row
	err = d.q.object.QueryRowContext(ctx, h[:]).Scan(append(r.columns(), &detail)...)
	if errors.Is(err, sql.ErrNoRows) {
		return Record{}, nil, false, nil
	}
	if err != nil {
		return Record{}, nil, false, fmt.Errorf("reading object: %w", sqlite.Classify(err))
	}
	rec, err = r.record()
	if err != nil {
		return Record{}, nil, false, err
	}
	if rec.Hash != h {
		return Record{}, nil, false, errSum
	}
	return rec, detail, true, nil
}
