package hashset

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/lazaret/lazaret/internal/threat"
)

// shardRecords is how many records share a filter; building one takes about
// 40 bytes of memory a record.
const shardRecords = 256 << 10

// maxCachedNames bounds the memory for recognising names that repeat; beyond
// it a repeated name may be stored again.
const maxCachedNames = 64 << 10

// Summary says what Build wrote.
type Summary struct {
	// Entries in the set.
	Entries int64
	// Duplicates are entries whose digest was there already.
	Duplicates int64
}

// Build writes a set of the given algorithm to w. Entries may come in any
// order; iteration stops at the first error, which is returned. The first
// entry of a digest gives the name unless a later one is more severe; entries
// of one digest that differ in size match any size, because the digest alone
// identifies the object. Temporary files are made in dir (empty: the system's
// directory). Peak memory is about 100 MB whatever the number of entries.
func Build(w io.Writer, algorithm Algorithm, dir string, entries iter.Seq2[Entry, error]) (Summary, error) {
	keySize := algorithm.Size()
	if keySize == 0 {
		return Summary{}, fmt.Errorf("building a hash set: unknown algorithm %q", algorithm)
	}
	b := &builder{layout: layout{keySize: keySize}, known: map[string]uint32{}}
	err := b.build(w, dir, entries)
	if cerr := b.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Summary{}, fmt.Errorf("building a hash set: %w", err)
	}
	return Summary{Entries: b.entries, Duplicates: b.added - b.entries}, nil
}

type builder struct {
	layout
	files    []*os.File
	sort     *sorter
	names    *spool
	offsets  *spool
	shardTab []byte
	fences   *spool
	filters  *spool
	sizes    []byte
	known    map[string]uint32
	item     []byte // scratch
	added    int64
	anySize  bool // an entry matches every size
}

// spool is an unlinked temporary file that is written once and copied out.
type spool struct {
	file *os.File
	*bufio.Writer
}

func (b *builder) spool(dir string) (*spool, error) {
	f, err := unlinked(dir)
	if err != nil {
		return nil, err
	}
	b.files = append(b.files, f)
	return &spool{f, bufio.NewWriterSize(f, 64<<10)}, nil
}

func (b *builder) close() error {
	var errs []error
	if b.sort != nil {
		errs = append(errs, b.sort.close())
	}
	for _, f := range b.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (b *builder) build(w io.Writer, dir string, entries iter.Seq2[Entry, error]) error {
	var err error
	for _, s := range []**spool{&b.names, &b.offsets, &b.fences, &b.filters} {
		if *s, err = b.spool(dir); err != nil {
			return err
		}
	}
	if b.sort, err = newSorter(b.keySize, dir); err != nil {
		return err
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		if err := b.add(e); err != nil {
			return err
		}
	}
	b.known = nil
	b.allSized = b.sized && !b.anySize
	if b.sized {
		b.sizes = make([]byte, sizeBits/8)
	}
	out := bufio.NewWriterSize(w, 256<<10)
	if err := b.writeBlocks(out); err != nil {
		return err
	}
	if err := b.writeRest(out); err != nil {
		return err
	}
	return out.Flush()
}

func (b *builder) add(e Entry) error {
	if len(e.Key) != b.keySize {
		return fmt.Errorf("entry %q has a digest of %d bytes instead of %d", e.Name, len(e.Key), b.keySize)
	}
	if e.Size < AnySize {
		return fmt.Errorf("entry %q has size %d", e.Name, e.Size)
	}
	if b.added++; b.added > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	name, err := b.name(e.Name, e.Severity)
	if err != nil {
		return err
	}
	if e.Size == AnySize {
		b.anySize = true
	} else {
		b.sized = true
	}
	return b.sort.add(e.Key, e.Size, name, e.Severity.Rank())
}

// name stores a name with its severity, usually once, and returns its number.
func (b *builder) name(name string, severity threat.Severity) (uint32, error) {
	rank := severity.Rank()
	if rank == 0 {
		return 0, fmt.Errorf("entry %q has unknown severity %q", name, severity)
	}
	if name == "" || len(name) > MaxName {
		return 0, fmt.Errorf("entry has a name of %d bytes, allowed are 1 to %d", len(name), MaxName)
	}
	item := append(b.item[:0], byte(rank), byte(len(name)), byte(len(name)>>8))
	item = append(item, name...)
	b.item = item
	if n, ok := b.known[string(item)]; ok {
		return n, nil
	}
	if len(b.known) >= maxCachedNames {
		clear(b.known)
	}
	n := uint32(b.layout.names)
	b.known[string(item)] = n
	if _, err := b.offsets.Write(binary.LittleEndian.AppendUint64(nil, uint64(b.namesLen))); err != nil {
		return 0, err
	}
	if _, err := b.names.Write(binary.LittleEndian.AppendUint32(item, checksum(n, item))); err != nil {
		return 0, err
	}
	b.layout.names++
	b.namesLen += int64(len(item) + nameTail)
	return n, nil
}

// writeBlocks merges the sorted records, drops duplicates and writes blocks,
// collecting the index on the way.
func (b *builder) writeBlocks(out *bufio.Writer) error {
	var (
		pending []byte // record that may still be merged with its successor
		block   = make([]byte, 0, blockSize)
		blocks  uint32
		keys    = make([]uint64, 0, shardRecords)
		first   []byte
	)
	flushBlock := func() error {
		if len(block) == 0 {
			return nil
		}
		full := block[:blockData]
		clear(full[len(block):])
		full = binary.LittleEndian.AppendUint32(full, checksum(blocks, full))
		blocks++
		block = block[:0]
		_, err := out.Write(full)
		return err
	}
	flushShard := func() error {
		if len(keys) == 0 {
			return nil
		}
		slices.Sort(keys)
		s, err := buildShard(first, slices.Compact(keys))
		if err != nil {
			return fmt.Errorf("building the filter: %w", err)
		}
		b.shardTab = append(b.shardTab, s.marshal(b.filterLen)...)
		b.filterLen += int64(len(s.fingerprints))
		b.shards++
		keys = keys[:0]
		_, err = b.filters.Write(s.fingerprints)
		return err
	}
	emit := func() error {
		if pending == nil {
			return nil
		}
		key := pending[:b.keySize]
		size := int64(binary.LittleEndian.Uint64(pending[b.keySize:]))
		if len(block) == 0 {
			if _, err := b.fences.Write(key); err != nil {
				return err
			}
		}
		if len(keys) == 0 {
			first = append(first[:0], key...)
		}
		block = append(block, key...)
		block = append(block, pending[b.keySize+8:b.keySize+12]...)
		if b.sized {
			block = binary.LittleEndian.AppendUint64(block, uint64(size))
			bit := sizeBit(size)
			b.sizes[bit/8] |= 1 << (bit % 8)
		}
		b.entries++
		if len(block)+b.recordSize() > blockData {
			if err := flushBlock(); err != nil {
				return err
			}
		}
		if keys = append(keys, filterKey(key)); len(keys) == cap(keys) {
			return flushShard()
		}
		return nil
	}
	err := b.sort.merge(func(r []byte) error {
		if pending != nil && bytes.Equal(pending[:b.keySize], r[:b.keySize]) {
			b.combine(pending, r)
			return nil
		}
		err := emit()
		pending = append(pending[:0], r...)
		return err
	})
	for _, f := range []func() error{emit, flushBlock, flushShard} {
		if err != nil {
			return err
		}
		err = f()
	}
	return err
}

// combine merges a later record r of the same key into first.
func (b *builder) combine(first, r []byte) {
	k := b.keySize
	if !bytes.Equal(first[k:k+8], r[k:k+8]) {
		anySize := AnySize
		binary.LittleEndian.PutUint64(first[k:], uint64(anySize))
		b.allSized = false
	}
	if r[k+12] > first[k+12] {
		copy(first[k+8:], r[k+8:])
	}
}

// writeRest writes everything after the blocks.
func (b *builder) writeRest(out *bufio.Writer) error {
	sum := crc32.New(castagnoli)
	index := io.MultiWriter(out, sum)
	if _, err := index.Write(b.shardTab); err != nil {
		return err
	}
	if err := b.fences.copyTo(index); err != nil {
		return err
	}
	if _, err := index.Write(b.sizes); err != nil {
		return err
	}
	if err := b.filters.copyTo(index); err != nil {
		return err
	}
	b.indexSum = sum.Sum32()
	if _, err := out.Write(make([]byte, b.offsetsAt()-b.indexAt()-b.indexLen())); err != nil {
		return err
	}
	if err := b.offsets.copyTo(out); err != nil {
		return err
	}
	if err := b.names.copyTo(out); err != nil {
		return err
	}
	_, err := out.Write(b.trailer())
	return err
}

func (s *spool) copyTo(w io.Writer) error {
	if err := s.Flush(); err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.Copy(w, s.file)
	return err
}
