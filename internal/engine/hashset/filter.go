package hashset

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/FastFilter/xorfilter"
)

// shard is a run of consecutive records and its filter.
type shard struct {
	first        []byte // first key
	seed         uint64
	segment      uint32 // fingerprints in a segment, a power of two
	segments     uint32
	fingerprints []byte // u16 each, little-endian
}

// filterKey is what a key's filter entry is computed from. The first eight
// bytes decide the key's place, so the next eight are used.
func filterKey(key []byte) uint64 { return binary.LittleEndian.Uint64(key[8:16]) }

// buildShard makes the filter of the keys whose filterKey values are given.
func buildShard(first []byte, keys []uint64) (*shard, error) {
	f, err := xorfilter.NewBinaryFuse[uint16](keys)
	if err != nil {
		return nil, err
	}
	s := &shard{
		first: bytes.Clone(first), seed: f.Seed, segment: f.SegmentLength, segments: f.SegmentCount,
		fingerprints: make([]byte, 0, 2*len(f.Fingerprints)),
	}
	for _, v := range f.Fingerprints {
		s.fingerprints = binary.LittleEndian.AppendUint16(s.fingerprints, v)
	}
	return s, nil
}

// marshal returns the shard's line of the index; offset is where in the
// filters its fingerprints start.
func (s *shard) marshal(offset int64) []byte {
	b := make([]byte, shardSize)
	copy(b, s.first)
	binary.LittleEndian.PutUint64(b[32:], s.seed)
	binary.LittleEndian.PutUint32(b[40:], s.segment)
	binary.LittleEndian.PutUint32(b[44:], s.segments)
	binary.LittleEndian.PutUint64(b[48:], uint64(offset))
	return b
}

// parseShard is the reverse of marshal. Afterwards no look-up can leave the
// fingerprints.
func parseShard(b []byte, keySize int, filters []byte) (*shard, error) {
	s := &shard{
		first: b[:keySize], seed: binary.LittleEndian.Uint64(b[32:]),
		segment: binary.LittleEndian.Uint32(b[40:]), segments: binary.LittleEndian.Uint32(b[44:]),
	}
	offset := binary.LittleEndian.Uint64(b[48:])
	if s.segment == 0 || s.segment > 1<<18 || bits.OnesCount32(s.segment) != 1 || s.segments == 0 || s.segments > 1<<13 {
		return nil, damaged("impossible filter")
	}
	size := 2 * (uint64(s.segments) + 2) * uint64(s.segment)
	if offset > uint64(len(filters)) || size > uint64(len(filters))-offset {
		return nil, damaged("a filter lies outside of the filters")
	}
	s.fingerprints = filters[offset : offset+size]
	return s, nil
}

// contains reports whether the filter may hold the key: three fingerprints in
// consecutive segments must combine to the key's own.
func (s *shard) contains(key []byte) bool {
	h := filterKey(key) + s.seed
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	hi, _ := bits.Mul64(h, uint64(s.segments*s.segment))
	mask := s.segment - 1
	i0 := uint32(hi)
	i1 := (i0 + s.segment) ^ (uint32(h>>18) & mask)
	i2 := (i0 + 2*s.segment) ^ (uint32(h) & mask)
	at := func(i uint32) uint16 { return binary.LittleEndian.Uint16(s.fingerprints[2*i:]) }
	return uint16(h^h>>32)^at(i0)^at(i1)^at(i2) == 0
}
