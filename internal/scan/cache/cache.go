// Package cache remembers what inspection concluded: which inode version has
// which content, what an epoch's signatures say about a content, and where it
// was seen (the content index). Memory answers, SQLite keeps it beyond the
// process. It is only a cache: a damaged file is set aside and made anew, a full
// disk leaves it working in memory, and both raise conditions.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

// Codes of the conditions that this package raises.
const (
	// ConditionReset says that the file was damaged and a new one was started.
	ConditionReset = "scan_cache_reset"
	// ConditionWrite says that the file cannot be written, e.g. a full disk.
	ConditionWrite = "scan_cache_write"
)

// Config of a Cache.
type Config struct {
	// Dir holds scan.db; it is created if it does not exist.
	Dir string
	// Capacity bounds the inode versions kept in memory; default 512 Ki at about
	// 100 bytes each.
	Capacity int
	// MaxRows bounds the inode versions and, separately, the locations on disk;
	// default 4 million.
	MaxRows int64
	// Retain is how long a location is kept after it was last seen; default 180
	// days.
	Retain     time.Duration
	Conditions *condition.Set // required
	Logger     *slog.Logger   // required
}

// Cache is safe for concurrent use.
type Cache struct {
	cfg    Config
	table  *table
	disk   *disk
	codec  *codec
	recent *lru.Cache[threat.Hash, *result]

	mu       sync.Mutex
	pending  []op // not yet taken by a flush
	wake     chan struct{}
	flushing sync.Mutex // one flush at a time

	blocksMu sync.Mutex
	blocks   map[blockKey]struct{} // inode ranges already read from disk

	filter  filter
	fill    chan struct{} // closed when the filter should be filled
	closed  atomic.Bool
	dropped atomic.Int64
}

// result is a record with its objects; objects is nil if the record says it
// all, or if they are too many to keep in memory.
type result struct {
	Record
	objects []threat.Object
}

const (
	recentObjects = 8192 // results kept in memory by content hash
	keepMembers   = 64   // objects of one result kept in memory
)

// Open opens or creates the cache. A damaged file is set aside. The caller
// runs Run and calls Close.
func Open(ctx context.Context, cfg Config) (*Cache, error) {
	if cfg.Capacity <= 0 {
		cfg.Capacity = 512 << 10
	}
	if cfg.MaxRows <= 0 {
		cfg.MaxRows = 4 << 20
	}
	if cfg.Retain <= 0 {
		cfg.Retain = 180 * 24 * time.Hour
	}
	recent, err := lru.New[threat.Hash, *result](recentObjects)
	if err != nil {
		return nil, fmt.Errorf("making cache: %w", err)
	}
	c := &Cache{
		cfg: cfg, table: newTable(cfg.Capacity), recent: recent,
		wake: make(chan struct{}, 1), fill: make(chan struct{}), blocks: map[blockKey]struct{}{},
	}
	if c.codec, err = newCodec(); err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.Dir, "scan.db")
	c.disk, err = openDisk(ctx, path)
	if errors.Is(err, sqlite.ErrCorrupt) {
		damage := err
		if _, err := sqlite.SetAside(path); err != nil {
			return nil, err
		}
		if c.disk, err = openDisk(ctx, path); err == nil {
			c.raiseReset(damage)
		}
	}
	if err != nil {
		c.codec.close()
		return nil, fmt.Errorf("opening verdict cache: %w", err)
	}
	return c, nil
}

// Close writes what is pending and closes the file.
func (c *Cache) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.flush(context.Background())
	err := c.disk.close()
	c.codec.close()
	if err != nil {
		return fmt.Errorf("closing verdict cache: %w", err)
	}
	return nil
}

// Known returns the record of an inode version from memory if it answers for
// the epoch and the limits. It neither allocates nor waits for the disk.
func (c *Cache) Known(k event.FileKey, epoch threat.Epoch, limits uint32) (Record, bool) {
	r, ok := c.table.get(k)
	return r, ok && r.valid(epoch, limits)
}

// Content returns the hash of an inode version from memory, whatever the epoch.
func (c *Cache) Content(k event.FileKey) (threat.Hash, bool) {
	r, ok := c.table.get(k)
	return r.Hash, ok && !r.Hash.IsZero()
}

// Recent returns the objects of a content from memory. They are shared: the
// caller must not change them.
func (c *Cache) Recent(h threat.Hash, epoch threat.Epoch, limits uint32) ([]threat.Object, bool) {
	r, ok := c.recent.Get(h)
	if !ok || !r.valid(epoch, limits) {
		return nil, false
	}
	if !r.Detail {
		return r.plain(), true
	}
	return r.objects, r.objects != nil
}

// Objects returns the objects of a content, from memory or disk, if they
// answer for the epoch and the limits. They are shared: do not change them.
func (c *Cache) Objects(ctx context.Context, h threat.Hash, epoch threat.Epoch, limits uint32) ([]threat.Object, bool) {
	if objects, ok := c.Recent(h, epoch, limits); ok {
		return objects, true
	}
	if c.filter.without(h) {
		return nil, false
	}
	rec, detail, ok, err := c.disk.object(ctx, h)
	if err != nil {
		c.trouble(ctx, err)
		return nil, false
	}
	if !ok && c.filter.missed() {
		close(c.fill)
	}
	if !ok || !rec.valid(epoch, limits) {
		return nil, false
	}
	res := &result{Record: rec}
	objects := rec.plain()
	if rec.Detail {
		if objects, err = c.codec.unpack(detail); err != nil {
			c.trouble(ctx, fmt.Errorf("%w: %w", sqlite.ErrCorrupt, err))
			return nil, false
		}
		if len(objects) <= keepMembers {
			res.objects = objects
		}
	}
	c.recent.Add(h, res)
	return objects, true
}

// Put remembers a result: objects[0] is the file itself, its hash must be set.
// A zero key means that no inode version is known for it. Limits is 0 if the
// result does not depend on limits. Without durable it is kept in memory only.
func (c *Cache) Put(k event.FileKey, objects []threat.Object, epoch threat.Epoch, limits uint32, durable bool) {
	rec := summarize(objects, epoch, limits)
	if k != (event.FileKey{}) {
		c.table.put(k, rec)
	}
	res := &result{Record: rec}
	if rec.Detail && (len(objects) <= keepMembers || !durable) {
		res.objects = objects
	}
	c.recent.Add(rec.Hash, res)
	if durable {
		c.filter.add(rec.Hash)
		c.queue(op{kind: opResult, key: k, rec: rec, objects: objects})
	}
}

// Bind remembers that an inode version has a content whose result is known.
func (c *Cache) Bind(k event.FileKey, objects []threat.Object, epoch threat.Epoch, limits uint32) {
	rec := summarize(objects, epoch, limits)
	c.table.put(k, rec)
	c.queue(op{kind: opInode, key: k, rec: rec})
}

// Forget removes an inode version: its content may have changed without its
// key (a store through a shared mapping).
func (c *Cache) Forget(k event.FileKey) {
	// An empty record instead of none: Load must not bring the old one back
	// while its removal from disk is pending.
	c.table.put(k, Record{})
	c.queue(op{kind: opForget, key: k})
}

// Dropped counts the writes that were given up because the disk was too slow.
func (c *Cache) Dropped() int64 { return c.dropped.Load() }

// Len is the number of inode versions in memory.
func (c *Cache) Len() int { return c.table.len() }
