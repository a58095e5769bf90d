package cache

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

// filter says of most hashes without a result on disk that they have none, so
// that new content costs no query. It is a Bloom filter (Bloom, 1970) of 1 MiB
// and four bits per hash: wrong for 2 % of the others at a million results.
// Hashes are SHA-256, so their own bits are random enough.
type filter struct {
	bits   [1 << 17]atomic.Uint64
	ready  atomic.Bool   // every result on disk is in it
	misses atomic.Uint64 // questions that the disk answered with nothing
}

// worth is how many misses make reading all hashes worth it: a scan of what is
// known has none, and a process that lives shortly should not pay for it.
const worth = 256

// missed counts a miss and reports, once, that the filter should be filled.
func (f *filter) missed() bool { return !f.ready.Load() && f.misses.Add(1) == worth }

func (f *filter) positions(h *threat.Hash, visit func(word *atomic.Uint64, bit uint64) bool) bool {
	for i := range 4 {
		n := binary.LittleEndian.Uint32(h[4*i:])
		if !visit(&f.bits[n>>6%uint32(len(f.bits))], 1<<(n&63)) {
			return false
		}
	}
	return true
}

func (f *filter) add(h threat.Hash) {
	f.positions(&h, func(w *atomic.Uint64, bit uint64) bool { w.Or(bit); return true })
}

// without reports that there is no result on disk for sure.
func (f *filter) without(h threat.Hash) bool {
	return f.ready.Load() && !f.positions(&h, func(w *atomic.Uint64, bit uint64) bool { return w.Load()&bit != 0 })
}

// fill reads the hashes of all results; until it is done, every question goes
// to the disk.
func (f *filter) fill(ctx context.Context, d *disk) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	rows, err := d.db.QueryContext(ctx, "SELECT hash FROM object WHERE epoch > 0")
	if err != nil {
		return fmt.Errorf("reading known objects: %w", sqlite.Classify(err))
	}
	defer rows.Close()
	var b []byte
	for rows.Next() {
		if err := rows.Scan(&b); err != nil {
			return fmt.Errorf("reading known objects: %w", sqlite.Classify(err))
		}
		var h threat.Hash
		if copy(h[:], b) == len(h) {
			f.add(h)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading known objects: %w", sqlite.Classify(err))
	}
	f.ready.Store(true)
	return nil
}
