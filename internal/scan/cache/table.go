package cache

import (
	"hash/maphash"
	"math"
	"sync"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/threat"
)

const shards = 64

// table maps inode versions to records in memory: sharded, bounded, about 100
// bytes per entry, no allocation on look-up. A full shard forgets a random
// entry: as good as the least recent one at this size, and it needs no list.
type table struct {
	seed  maphash.Seed
	limit int // entries per shard
	shard [shards]struct {
		mu sync.Mutex
		m  map[slot]value
		_  [40]byte // one cache line each
	}
	types typeNames
}

// slot is a compact FileKey: inode and change time exactly, the rest as a hash
// with a secret seed, so that nobody can construct a collision.
type slot struct {
	ino   uint64
	ctime int64
	check uint64
}

type value struct {
	hash    threat.Hash
	epoch   uint32
	count   uint32
	limits  uint32
	verdict uint8
	typ     uint8
	detail  bool
}

func newTable(capacity int) *table {
	t := &table{seed: maphash.MakeSeed(), limit: max(capacity/shards, 1)}
	for i := range t.shard {
		t.shard[i].m = map[slot]value{}
	}
	return t
}

func (t *table) slot(k event.FileKey) slot {
	rest := struct {
		dev   uint64
		mtime int64
		size  int64
	}{k.Dev, k.MTime, k.Size}
	return slot{ino: k.Ino, ctime: k.CTime, check: maphash.Comparable(t.seed, rest)}
}

func (s slot) index() int { return int((s.ino ^ s.check ^ uint64(s.ctime)>>20) % shards) }

func (t *table) get(k event.FileKey) (Record, bool) {
	s := t.slot(k)
	sh := &t.shard[s.index()]
	sh.mu.Lock()
	v, ok := sh.m[s]
	sh.mu.Unlock()
	if !ok {
		return Record{}, false
	}
	return Record{
		Hash: v.hash, Epoch: threat.Epoch(v.epoch), Verdict: verdictOf(v.verdict), Type: t.types.name(v.typ),
		Size: k.Size, Count: int(v.count), Limits: v.limits, Detail: v.detail,
	}, true
}

// put remembers a record; records of epochs that do not fit are not kept.
func (t *table) put(k event.FileKey, r Record) {
	if uint64(r.Epoch) > math.MaxUint32 || r.Count > math.MaxUint32 {
		return
	}
	v := value{
		hash: r.Hash, epoch: uint32(r.Epoch), count: uint32(r.Count), limits: r.Limits,
		verdict: verdictCode(r.Verdict), typ: t.types.code(r.Type), detail: r.Detail,
	}
	s := t.slot(k)
	sh := &t.shard[s.index()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, known := sh.m[s]; !known && len(sh.m) >= t.limit {
		for old := range sh.m { // iteration starts at a random place
			delete(sh.m, old)
			break
		}
	}
	sh.m[s] = v
}

func (t *table) len() int {
	n := 0
	for i := range t.shard {
		sh := &t.shard[i]
		sh.mu.Lock()
		n += len(sh.m)
		sh.mu.Unlock()
	}
	return n
}

// typeNames numbers the content types; there are far fewer than 255. Should
// there be more, the name of the rest is lost, which only costs display.
type typeNames struct {
	mu    sync.RWMutex
	names []string
	codes map[string]uint8
}

func (n *typeNames) code(name string) uint8 {
	if name == "" {
		return 0
	}
	n.mu.RLock()
	c, ok := n.codes[name]
	n.mu.RUnlock()
	if ok {
		return c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.codes[name]; ok {
		return c
	}
	if len(n.names) == math.MaxUint8 {
		return 0
	}
	if n.codes == nil {
		n.codes = map[string]uint8{}
	}
	n.names = append(n.names, name)
	n.codes[name] = uint8(len(n.names))
	return uint8(len(n.names))
}

func (n *typeNames) name(code uint8) string {
	if code == 0 {
		return ""
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.names[code-1]
}
