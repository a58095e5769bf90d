package cache

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

type opKind uint8

const (
	opResult   opKind = iota // object, and inode version if key is set
	opInode                  // inode version of a known object
	opForget                 // inode version no longer trusted
	opLocation               // where an object was seen
)

// op is one pending write.
type op struct {
	kind    opKind
	key     event.FileKey
	rec     Record
	objects []threat.Object
	loc     threat.Location
}

const (
	flushEvery = 200 * time.Millisecond
	flushSoon  = 4096  // pending writes that wake the writer early
	maxPending = 65536 // more are given up: the disk does not keep pace
	pruneEvery = time.Hour
)

// queue adds a write for the background writer; it never waits.
func (c *Cache) queue(o op) {
	c.mu.Lock()
	full := len(c.pending) >= maxPending
	if !full {
		c.pending = append(c.pending, o)
	}
	n := len(c.pending)
	c.mu.Unlock()
	if full {
		c.dropped.Add(1)
		return
	}
	if n == 1 || n == flushSoon {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes behind and removes what is over the bounds, until ctx ends. What
// is pending then is written by Close.
func (c *Cache) Run(ctx context.Context) error {
	fill := c.fill
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-prune.C:
			c.Prune(ctx)
			continue
		case <-fill:
			fill = nil // once
			if err := c.filter.fill(ctx, c.disk); err != nil {
				c.trouble(ctx, err)
			}
			continue
		case <-c.wake:
		}
		c.pause(ctx)
		c.flush(context.WithoutCancel(ctx))
	}
}

// pause lets a batch grow for a moment.
func (c *Cache) pause(ctx context.Context) {
	t := time.NewTimer(flushEvery)
	defer t.Stop()
	for {
		c.mu.Lock()
		n := len(c.pending)
		c.mu.Unlock()
		if n >= flushSoon {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-c.wake:
		}
	}
}

// Flush writes everything that is pending; Run and Close do it by themselves.
func (c *Cache) Flush(ctx context.Context) { c.flush(ctx) }

func (c *Cache) flush(ctx context.Context) {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.mu.Lock()
	ops := c.pending
	c.pending = nil
	c.mu.Unlock()
	if len(ops) == 0 {
		return
	}
	err := c.disk.write(ctx, c.codec, ops)
	if errors.Is(err, sqlite.ErrCorrupt) {
		c.reset(err)
		err = c.disk.write(ctx, c.codec, ops)
	}
	if err != nil {
		// The records stay known in memory; on disk they are missed, not wrong,
		// except what was to be forgotten: that must not come back.
		for _, o := range ops {
			if o.kind == opForget {
				c.queue(o)
			}
		}
		c.raiseWrite(err)
		return
	}
	c.cfg.Conditions.Clear(ConditionWrite)
}

// write stores a batch in one transaction.
func (d *disk) write(ctx context.Context, cd *codec, ops []op) (err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("writing verdict cache: %w", sqlite.Classify(err))
	}
	defer tx.Rollback()
	w := batch{ctx: ctx, tx: tx, q: &d.q, codec: cd, now: time.Now().Unix(), ids: make(map[threat.Hash]int64, len(ops))}
	for i := range ops {
		if err := w.apply(&ops[i]); err != nil {
			return fmt.Errorf("writing verdict cache: %w", sqlite.Classify(err))
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("writing verdict cache: %w", sqlite.Classify(err))
	}
	return nil
}

type batch struct {
	ctx   context.Context
	tx    *sql.Tx
	q     *statements
	codec *codec
	now   int64
	ids   map[threat.Hash]int64
}

func (b *batch) exec(s *sql.Stmt, args ...any) error {
	_, err := b.tx.StmtContext(b.ctx, s).ExecContext(b.ctx, args...)
	return err
}

func (b *batch) apply(o *op) error {
	switch o.kind {
	case opResult:
		id, err := b.result(o)
		if err != nil || o.key == (event.FileKey{}) {
			return err
		}
		return b.inode(o, id)
	case opInode:
		id, err := b.id(o.rec.Hash)
		if err != nil {
			return err
		}
		return b.inode(o, id)
	case opForget:
		return b.exec(b.q.forget, int64(o.key.Dev), int64(o.key.Ino))
	case opLocation:
		id, err := b.id(o.rec.Hash)
		if err != nil {
			return err
		}
		l := &o.loc
		return b.exec(b.q.putLocation, id, l.Workload, l.Path, l.Layer, l.Image, l.HostPath, b.now, b.now)
	}
	return nil
}

func (b *batch) inode(o *op, id int64) error {
	k := o.key
	return b.exec(b.q.putInode, int64(k.Dev), int64(k.Ino), k.CTime, k.MTime, k.Size, id, b.now, int64(keySum(k, o.rec.Hash)))
}

func (b *batch) result(o *op) (int64, error) {
	r := &o.rec
	if uint64(r.Epoch) > math.MaxInt64 {
		return 0, fmt.Errorf("epoch %d is out of range", r.Epoch)
	}
	var detail []byte
	if r.Detail {
		var err error
		if detail, err = b.codec.pack(o.objects); err != nil {
			return 0, err
		}
	}
	var id int64
	err := b.tx.StmtContext(b.ctx, b.q.putObject).QueryRowContext(b.ctx, r.Hash[:], int64(r.Epoch), int64(verdictCode(r.Verdict)),
		r.Type, r.Size, int64(r.Count), int64(r.Limits), detail, int64(r.sum())).Scan(&id)
	if err != nil {
		return 0, err
	}
	b.ids[r.Hash] = id
	for i := 1; i < len(o.objects); i++ {
		if err := b.exec(b.q.putMember, prefix(o.objects[i].Hash), id); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// id finds or makes the row of a content of which nothing but the hash is known.
func (b *batch) id(h threat.Hash) (int64, error) {
	if id, ok := b.ids[h]; ok {
		return id, nil
	}
	empty := Record{Hash: h}
	if err := b.exec(b.q.putName, h[:], int64(empty.sum())); err != nil {
		return 0, err
	}
	var id int64
	if err := b.tx.StmtContext(b.ctx, b.q.objectID).QueryRowContext(b.ctx, h[:]).Scan(&id); err != nil {
		return 0, err
	}
	b.ids[h] = id
	return id, nil
}

func prefix(h threat.Hash) int64 { return int64(binary.BigEndian.Uint64(h[:8])) }
