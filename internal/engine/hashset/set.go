package hashset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sort"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// Set is an open set. It is safe for concurrent use.
type Set struct {
	layout
	algorithm Algorithm
	file      *os.File
	mapping   []byte
	filters   []*shard
	fences    []byte
	sizes     []byte
	reads     atomic.Int64
}

// Open verifies f as Build wrote it and maps its index. The file is read at
// offsets; f belongs to the set from then on, Close closes it. If Open returns
// an error, which wraps ErrDamaged when the content is at fault, f is still the
// caller's.
func Open(f *os.File) (*Set, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening hash set: %w", err)
	}
	s := &Set{file: f}
	if err := s.load(st.Size()); err != nil {
		return nil, errors.Join(fmt.Errorf("opening hash set %s: %w", f.Name(), err), s.unmap())
	}
	return s, nil
}

func (s *Set) load(size int64) error {
	if size < trailerSize {
		return damaged("the file has only %d bytes", size)
	}
	tail := make([]byte, trailerSize)
	if _, err := s.file.ReadAt(tail, size-trailerSize); err != nil {
		return fmt.Errorf("reading the trailer: %w", err)
	}
	l, err := parseTrailer(tail, size)
	if err != nil {
		return err
	}
	s.layout = *l
	s.algorithm, _ = BySize(l.keySize)
	if l.indexLen() == 0 {
		return nil
	}
	// A mapping starts at a page, and pages may be larger than our alignment.
	start := l.indexAt() &^ int64(os.Getpagesize()-1)
	s.mapping, err = unix.Mmap(int(s.file.Fd()), start, int(l.indexAt()+l.indexLen()-start), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the index: %w", err)
	}
	index := s.mapping[l.indexAt()-start:]
	if crc32.Checksum(index, castagnoli) != l.indexSum {
		return damaged("wrong checksum of the index")
	}
	s.fences = index[l.fencesAt():l.sizesAt()]
	s.sizes = index[l.sizesAt():l.filtersAt()]
	for i := range l.shards {
		sh, err := parseShard(index[i*shardSize:][:shardSize], l.keySize, index[l.filtersAt():])
		if err != nil {
			return err
		}
		s.filters = append(s.filters, sh)
	}
	return nil
}

func (s *Set) unmap() error {
	if s.mapping == nil {
		return nil
	}
	m := s.mapping
	s.mapping, s.filters, s.fences, s.sizes = nil, nil, nil, nil
	return unix.Munmap(m)
}

// Close unmaps the index and closes the file. No look-up may be under way.
func (s *Set) Close() error { return errors.Join(s.unmap(), s.file.Close()) }

// Algorithm says which digests the set holds.
func (s *Set) Algorithm() Algorithm { return s.algorithm }

// Len is the number of entries.
func (s *Set) Len() int64 { return s.entries }

// Reads counts the blocks that were read to confirm what the filter let pass.
func (s *Set) Reads() int64 { return s.reads.Load() }

// MayHaveSize reports whether an object of the given size can be in the set at
// all; if not, its digest need not be computed.
func (s *Set) MayHaveSize(size int64) bool {
	if s.entries == 0 {
		return false
	}
	if !s.allSized {
		return true
	}
	bit := sizeBit(size)
	return s.sizes[bit/8]&(1<<(bit%8)) != 0
}

// Lookup finds an object by its digest and size in bytes. An error means that
// the answer is not known: the file could not be read or is damaged.
func (s *Set) Lookup(key []byte, size int64) (name string, severity threat.Severity, ok bool, err error) {
	if len(key) != s.keySize {
		return "", "", false, fmt.Errorf("looking up a digest of %d bytes in a set of %s", len(key), s.algorithm)
	}
	if !s.mayContain(key) {
		return "", "", false, nil
	}
	number, want, ok, err := s.find(key)
	if err == nil && ok && (want == AnySize || want == size) {
		if name, severity, err = s.name(number); err == nil {
			return name, severity, true, nil
		}
	}
	if err != nil {
		err = fmt.Errorf("looking up in %s: %w", s.algorithm.File(), err)
	}
	return "", "", false, err
}

// mayContain asks the filter of the shard that would hold the key.
func (s *Set) mayContain(key []byte) bool {
	lo, hi := 0, len(s.filters)
	for lo < hi {
		if mid := (lo + hi) / 2; bytes.Compare(s.filters[mid].first, key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && s.filters[lo-1].contains(key)
}

// find reads the one block that can hold the key.
func (s *Set) find(key []byte) (name uint32, size int64, ok bool, err error) {
	k := s.keySize
	i := int64(sort.Search(int(s.blocks()), func(i int) bool { return bytes.Compare(s.fences[i*k:][:k], key) > 0 })) - 1
	if i < 0 {
		return 0, 0, false, nil
	}
	s.reads.Add(1)
	block := make([]byte, blockSize)
	if _, err := s.file.ReadAt(block, i*blockSize); err != nil {
		return 0, 0, false, fmt.Errorf("reading block %d: %w", i, err)
	}
	if checksum(uint32(i), block[:blockData]) != binary.LittleEndian.Uint32(block[blockData:]) {
		return 0, 0, false, damaged("wrong checksum of block %d", i)
	}
	w, n := s.recordSize(), int(s.inBlock(i))
	j := sort.Search(n, func(j int) bool { return bytes.Compare(block[j*w:][:k], key) >= 0 })
	if j == n || !bytes.Equal(block[j*w:][:k], key) {
		return 0, 0, false, nil
	}
	r := block[j*w:][:w]
	size = AnySize
	if s.sized {
		size = int64(binary.LittleEndian.Uint64(r[k+4:]))
	}
	return binary.LittleEndian.Uint32(r[k:]), size, true, nil
}

// name reads a signature's name and severity.
func (s *Set) name(n uint32) (string, threat.Severity, error) {
	if int64(n) >= s.names {
		return "", "", damaged("name %d of %d", n, s.names)
	}
	var at [8]byte
	if _, err := s.file.ReadAt(at[:], s.offsetsAt()+int64(n)*8); err != nil {
		return "", "", fmt.Errorf("reading the place of name %d: %w", n, err)
	}
	offset := binary.LittleEndian.Uint64(at[:])
	if offset >= uint64(s.namesLen) {
		return "", "", damaged("name %d lies outside of the names", n)
	}
	b := make([]byte, min(nameHead+MaxName+nameTail, s.namesLen-int64(offset)))
	if _, err := s.file.ReadAt(b, s.namesAt()+int64(offset)); err != nil {
		return "", "", fmt.Errorf("reading name %d: %w", n, err)
	}
	if len(b) < nameHead+nameTail {
		return "", "", damaged("name %d is cut off", n)
	}
	end := nameHead + int(binary.LittleEndian.Uint16(b[1:]))
	if end+nameTail > len(b) || checksum(n, b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return "", "", damaged("wrong checksum of name %d", n)
	}
	rank := int(b[0])
	if rank < 1 || rank > len(threat.Severities) {
		return "", "", damaged("unknown severity of name %d", n)
	}
	return string(b[nameHead:end]), threat.Severities[rank-1], nil
}
