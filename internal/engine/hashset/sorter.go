package hashset

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// runRecords is how many records are sorted in memory at a time; 512 Ki records
// with their order take about 32 MB.
const runRecords = 512 << 10

// sorter sorts fixed-width records (key, size i64, name number u32, severity
// rank u8) with bounded memory: runs sorted in memory go to one temporary file
// and are merged.
type sorter struct {
	keySize int
	file    *os.File // unlinked
	buf     []byte
	order   []ordered
	runs    []int64
	offset  int64
}

type ordered struct {
	prefix uint64
	index  uint32
}

const recordTail = 8 + 4 + 1

func newSorter(keySize int, dir string) (*sorter, error) {
	f, err := unlinked(dir)
	if err != nil {
		return nil, err
	}
	return &sorter{keySize: keySize, file: f}, nil
}

// unlinked makes a temporary file that is gone when it is closed.
func unlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "hashset-*")
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlinking a temporary file: %w", err), f.Close())
	}
	return f, nil
}

func (s *sorter) width() int { return s.keySize + recordTail }

func (s *sorter) add(key []byte, size int64, name uint32, rank int) error {
	if s.buf == nil {
		s.buf = make([]byte, 0, runRecords/64*s.width())
	}
	s.buf = append(s.buf, key...)
	s.buf = binary.LittleEndian.AppendUint64(s.buf, uint64(size))
	s.buf = binary.LittleEndian.AppendUint32(s.buf, name)
	s.buf = append(s.buf, byte(rank))
	if len(s.buf) >= runRecords*s.width() {
		return s.spill()
	}
	return nil
}

// spill sorts what is in memory, keeping the order of equal keys, and appends
// it to the file as a run.
func (s *sorter) spill() error {
	if len(s.buf) == 0 {
		return nil
	}
	w := s.width()
	s.order = s.order[:0]
	for i := 0; i < len(s.buf); i += w {
		s.order = append(s.order, ordered{binary.BigEndian.Uint64(s.buf[i:]), uint32(i / w)})
	}
	key := func(o ordered) []byte { return s.buf[int(o.index)*w:][:s.keySize] }
	slices.SortFunc(s.order, func(a, b ordered) int {
		if a.prefix != b.prefix {
			if a.prefix < b.prefix {
				return -1
			}
			return 1
		}
		if c := bytes.Compare(key(a), key(b)); c != 0 {
			return c
		}
		return int(a.index) - int(b.index)
	})
	out := bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.offset), 256<<10)
	for _, o := range s.order {
		if _, err := out.Write(s.buf[int(o.index)*w:][:w]); err != nil {
			return fmt.Errorf("writing sorted entries: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing sorted entries: %w", err)
	}
	s.runs = append(s.runs, int64(len(s.buf)))
	s.offset += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

// merge calls f for every record in the order of keys, records of equal keys
// in the order they were added. The slice is valid during the call.
func (s *sorter) merge(f func(record []byte) error) error {
	if err := s.spill(); err != nil {
		return err
	}
	s.buf, s.order = nil, nil
	var (
		h  runHeap
		at int64
	)
	for i, n := range s.runs {
		r := &run{
			in:     bufio.NewReaderSize(io.NewSectionReader(s.file, at, n), 64<<10),
			record: make([]byte, s.width()), key: s.keySize, number: i,
		}
		at += n
		if err := r.next(); err != nil {
			return err
		}
		h = append(h, r)
	}
	heap.Init(&h)
	for len(h) > 0 {
		if err := f(h[0].record); err != nil {
			return err
		}
		switch err := h[0].next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		case err != nil:
			return err
		default:
			heap.Fix(&h, 0)
		}
	}
	return nil
}

func (s *sorter) close() error { return s.file.Close() }

// run is one sorted run while it is merged.
type run struct {
	in     *bufio.Reader
	record []byte
	key    int
	number int
}

func (r *run) next() error {
	_, err := io.ReadFull(r.in, r.record)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading sorted entries: %w", err)
	}
	return err
}

type runHeap []*run

func (h runHeap) Len() int      { return len(h) }
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h runHeap) Less(i, j int) bool {
	if c := bytes.Compare(h[i].record[:h[i].key], h[j].record[:h[j].key]); c != 0 {
		return c < 0
	}
	return h[i].number < h[j].number
}
func (h *runHeap) Push(x any) { *h = append(*h, x.(*run)) }
func (h *runHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
