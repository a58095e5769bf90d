package hashset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	blockSize   = 4096
	blockData   = blockSize - 4
	shardSize   = 56
	trailerSize = 104
	sizeLog     = 20 // the size bitmap has 2^20 bits
	sizeBits    = 1 << sizeLog
	nameHead    = 3 // severity and length before a name
	nameTail    = 4 // checksum after a name

	// maxEntries bounds what Open believes and Build accepts.
	maxEntries = 1 << 30

	magic = "LZHASHES"
)

// ErrDamaged is wrapped by every error that says that a set's file is not what
// Build wrote.
var ErrDamaged = errors.New("hash set is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers an item's number too, so that items cannot trade places.
func checksum(number uint32, data []byte) uint32 {
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], number)
	return crc32.Update(crc32.Update(0, castagnoli, n[:]), castagnoli, data)
}

// layout is the trailer's content; every section's place follows from it.
type layout struct {
	keySize   int
	sized     bool // records carry sizes
	allSized  bool // no entry matches any size
	entries   int64
	shards    int64
	filterLen int64 // bytes
	names     int64
	namesLen  int64 // bytes
	indexSum  uint32
}

// The trailer's fields, in order: magic [8], version u32, key size u32, flags
// u32 (1 sized, 2 all sized), reserved u32, entries u64, shards u64, filter
// bytes u64, names u64, names bytes u64, file size u64, index checksum u32,
// reserved [20], trailer checksum u32.
func (l *layout) trailer() []byte {
	b := make([]byte, trailerSize)
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], uint32(l.keySize))
	var flags uint32
	if l.sized {
		flags |= 1
	}
	if l.allSized {
		flags |= 2
	}
	le.PutUint32(b[16:], flags)
	for i, v := range []int64{l.entries, l.shards, l.filterLen, l.names, l.namesLen, l.fileSize()} {
		le.PutUint64(b[24+8*i:], uint64(v))
	}
	le.PutUint32(b[72:], l.indexSum)
	le.PutUint32(b[trailerSize-4:], crc32.Checksum(b[:trailerSize-4], castagnoli))
	return b
}

// parseTrailer checks everything that can be checked without the other
// sections: afterwards all offsets lie inside a file of the given size.
func parseTrailer(b []byte, fileSize int64) (*layout, error) {
	le := binary.LittleEndian
	if len(b) != trailerSize || string(b[:8]) != magic {
		return nil, damaged("no trailer")
	}
	if le.Uint32(b[trailerSize-4:]) != crc32.Checksum(b[:trailerSize-4], castagnoli) {
		return nil, damaged("wrong checksum of the trailer")
	}
	if v := le.Uint32(b[8:]); v != 1 {
		return nil, fmt.Errorf("unknown version %d of the hash set format", v)
	}
	var n [6]int64
	for i := range n {
		v := le.Uint64(b[24+8*i:])
		if v > 1<<42 { // no sum of sections can overflow
			return nil, damaged("impossible length")
		}
		n[i] = int64(v)
	}
	flags := le.Uint32(b[16:])
	l := &layout{
		keySize: int(le.Uint32(b[12:])), sized: flags&1 != 0, allSized: flags&2 != 0,
		entries: n[0], shards: n[1], filterLen: n[2], names: n[3], namesLen: n[4],
		indexSum: le.Uint32(b[72:]),
	}
	_, known := BySize(l.keySize)
	switch {
	case !known || flags > 3 || (l.allSized && !l.sized):
		return nil, damaged("unknown kind of key")
	case l.entries > maxEntries || l.shards > l.entries || l.names > maxEntries:
		return nil, damaged("impossible count")
	case l.entries > 0 && (l.shards == 0 || l.names == 0):
		return nil, damaged("entries without filter or names")
	case l.filterLen%2 != 0 || l.filterLen > 1<<33 || l.indexLen() > 1<<34:
		return nil, damaged("impossible length of the index")
	case n[5] != fileSize || l.fileSize() != fileSize:
		return nil, damaged("the file has %d bytes instead of %d", fileSize, n[5])
	}
	return l, nil
}

func (l *layout) recordSize() int {
	if l.sized {
		return l.keySize + 12
	}
	return l.keySize + 4
}

func (l *layout) perBlock() int64 { return int64(blockData / l.recordSize()) }

func (l *layout) blocks() int64 { return (l.entries + l.perBlock() - 1) / l.perBlock() }

// inBlock is the number of records in block i.
func (l *layout) inBlock(i int64) int64 { return min(l.perBlock(), l.entries-i*l.perBlock()) }

func (l *layout) sizesLen() int64 {
	if l.sized {
		return sizeBits / 8
	}
	return 0
}

func (l *layout) fencesAt() int64  { return l.shards * shardSize }
func (l *layout) sizesAt() int64   { return l.fencesAt() + l.blocks()*int64(l.keySize) }
func (l *layout) filtersAt() int64 { return l.sizesAt() + l.sizesLen() }
func (l *layout) indexLen() int64  { return l.filtersAt() + l.filterLen }

func (l *layout) indexAt() int64   { return l.blocks() * blockSize }
func (l *layout) offsetsAt() int64 { return align(l.indexAt() + l.indexLen()) }
func (l *layout) namesAt() int64   { return l.offsetsAt() + l.names*8 }
func (l *layout) fileSize() int64  { return l.namesAt() + l.namesLen + trailerSize }

func align(n int64) int64 { return (n + blockSize - 1) &^ (blockSize - 1) }

// sizeBit picks a size's bit in the bitmap (Fibonacci hashing).
func sizeBit(size int64) uint32 {
	return uint32(uint64(size) * 0x9E3779B97F4A7C15 >> (64 - sizeLog))
}
