package cache

import (
	"context"
	"errors"
	"log/slog"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

// blockBits sets how many neighbouring inodes are read from disk at once.
// Files of one directory are mostly neighbours, so a walk costs one query per
// some hundred files instead of one per file.
const blockBits = 10

// maxBlocks bounds the memory of what was read already, to about 2 MB. When it
// is full, everything may be read once more.
const maxBlocks = 64 << 10

type blockKey struct{ dev, block uint64 }

// Load reads the inode versions around k from disk unless that was done
// before. After it Known and Content know what the disk knows.
func (c *Cache) Load(ctx context.Context, k event.FileKey) {
	b := blockKey{k.Dev, k.Ino >> blockBits}
	// Held during the query: whoever needs the same block waits for it instead
	// of missing it.
	c.blocksMu.Lock()
	defer c.blocksMu.Unlock()
	if _, done := c.blocks[b]; done {
		return
	}
	if len(c.blocks) >= maxBlocks {
		clear(c.blocks)
	}
	c.blocks[b] = struct{}{}
	from := b.block << blockBits
	err := c.disk.block(ctx, b.dev, from, from|(1<<blockBits-1), func(k event.FileKey, r Record) {
		if _, newer := c.table.get(k); !newer {
			c.table.put(k, r)
		}
	})
	if err != nil {
		delete(c.blocks, b)
		c.trouble(ctx, err)
	}
}

// trouble handles an error of the file: damage leads to a new file, everything
// else is left to the next attempt.
func (c *Cache) trouble(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil || c.closed.Load():
	case errors.Is(err, sqlite.ErrCorrupt):
		c.reset(err)
	default:
		c.raiseWrite(err)
	}
}

// reset starts a new file. It does not stop with a caller's context: a file
// half replaced helps nobody.
func (c *Cache) reset(damage error) {
	if err := c.disk.reset(context.Background()); err != nil {
		c.raiseWrite(err)
		return
	}
	c.raiseReset(damage)
}

func (c *Cache) raiseReset(damage error) {
	c.cfg.Logger.Warn("verdict cache was damaged and is made anew", slog.Any("error", damage))
	c.cfg.Conditions.Raise(threat.Condition{
		Code: ConditionReset, Severity: threat.Low,
		Text:   "The verdict cache was damaged; it was set aside and a new one is being filled.",
		Advice: "Nothing was lost but time: files are inspected again. Check the disk if this repeats; scan.db.damaged may be deleted.",
	})
}

func (c *Cache) raiseWrite(err error) {
	c.cfg.Conditions.Raise(threat.Condition{
		Code: ConditionWrite, Severity: threat.Medium,
		Text:   "The verdict cache cannot use its file: " + err.Error(),
		Advice: "Free space on the file system of the state directory. Protection continues from memory; after a restart files are inspected again.",
	})
}
