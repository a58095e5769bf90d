package unpack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/lazaret/lazaret/internal/threat"
)

var errXZ = errors.New("invalid xz data")

// xzReader reads .xz data ("The .xz File Format" 1.2.0): streams of blocks,
// each with up to three filters before LZMA2, stream padding between them.
type xzReader struct {
	c      *cursor
	w      *walk
	flags  byte      // check type of the current stream
	block  io.Reader // filters over LZMA2, nil between blocks
	check  hash.Hash // nil if the stream has none
	start  int64     // position of the block's data
	size   int64     // unpacked size as declared, -1 if it is not
	got    int64
	blocks uint64
	open   bool // a stream is open
	began  bool // a stream was read
	lzma2  lzma2Reader
	err    error
}

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.advance()
			continue
		}
		n, err := x.block.Read(p)
		x.got += int64(n)
		if x.check != nil {
			_, _ = x.check.Write(p[:n])
		}
		if err == io.EOF {
			err = x.endBlock()
			x.block = nil
		}
		x.err = err
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// advance goes to the next block; io.EOF when no stream follows.
func (x *xzReader) advance() error {
	if err := x.w.b.check(x.w.ctx); err != nil {
		return err
	}
	if !x.open {
		return x.header()
	}
	size := x.c.peek(1)
	if len(size) == 0 {
		return io.ErrUnexpectedEOF
	}
	if size[0] != 0 {
		return x.blockHeader(int(size[0])*4 + 4)
	}
	x.open = false
	return x.index()
}

// header reads a stream header (section 2.1.1).
func (x *xzReader) header() error {
	if x.began { // padding between streams is a multiple of four zeros
		for bytes.Equal(x.c.peek(4), []byte{0, 0, 0, 0}) {
			if err := x.c.skip(4); err != nil {
				return err
			}
		}
	}
	if !bytes.HasPrefix(x.c.peek(6), []byte("\xfd7zXZ\x00")) {
		return io.EOF
	}
	h, err := x.c.next(12)
	if err != nil {
		return unexpected(err)
	}
	if crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) || h[6] != 0 {
		return errXZ
	}
	x.flags, x.open, x.began, x.blocks = h[7], true, true, 0
	return nil
}

// checkSize is the length of a check in bytes by its id (section 2.1.1.2).
func checkSize(id byte) int64 {
	if id == 0 {
		return 0
	}
	return 4 << ((id - 1) / 3)
}

// blockHeader reads a block header of n bytes and opens its data (section 3.1).
func (x *xzReader) blockHeader(n int) error {
	h, err := x.c.next(n)
	if err != nil {
		return unexpected(err)
	}
	if crc32.ChecksumIEEE(h[:n-4]) != binary.LittleEndian.Uint32(h[n-4:]) {
		return errXZ
	}
	flags, f := h[1], fields{b: h[2 : n-4]}
	if flags&0x3c != 0 {
		return errXZ
	}
	if flags&0x40 != 0 {
		f.varint() // packed size: the data itself says where it ends
	}
	x.size = -1
	if flags&0x80 != 0 {
		x.size = int64(f.varint())
		if x.size < 0 {
			return errXZ
		}
	}
	type filter struct {
		id    uint64
		props []byte
	}
	filters := make([]filter, flags&3+1)
	for i := range filters {
		id, size := f.varint(), f.varint()
		filters[i] = filter{id, bytes.Clone(f.take(size))}
	}
	if f.bad {
		return errXZ
	}
	last := filters[len(filters)-1]
	if last.id != 0x21 || len(last.props) != 1 {
		return Fail(threat.ReasonUnknownMethod, "xz filter %#x is not known", last.id)
	}
	if err := x.lzma2.reset(x.c.input(), last.props[0], x.size); err != nil {
		return err
	}
	r := io.Reader(&x.lzma2)
	for i := len(filters) - 2; i >= 0; i-- {
		if r, err = newFilter(filters[i].id, filters[i].props, r); err != nil {
			return err
		}
	}
	x.check = nil
	switch x.flags {
	case 1:
		x.check = crc32.NewIEEE()
	case 4:
		x.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.check = sha256.New()
	}
	x.block, x.start, x.got = r, x.c.pos(), 0
	x.blocks++
	return nil
}

// endBlock reads block padding and compares the check.
func (x *xzReader) endBlock() error {
	if x.size >= 0 && x.got != x.size {
		return fmt.Errorf("%w: block has another size than declared", errXZ)
	}
	if err := x.c.skip(-(x.c.pos() - x.start) & 3); err != nil {
		return err
	}
	want, err := x.c.next(int(checkSize(x.flags & 15)))
	if err != nil {
		return unexpected(err)
	}
	if x.check == nil {
		return nil
	}
	sum := x.check.Sum(nil)
	if len(sum) < 32 { // CRCs are stored little endian
		for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
			sum[i], sum[j] = sum[j], sum[i]
		}
	}
	if !bytes.Equal(sum, want) {
		return errors.New("checksum of an xz block is wrong")
	}
	return nil
}

// index passes over index and footer (sections 4 and 2.1.2). Their content
// repeats what was read already, so only the number of blocks is compared.
func (x *xzReader) index() error {
	start := x.c.pos()
	in := x.c.input()
	_, _ = in.ReadByte()
	records, err := binary.ReadUvarint(in)
	if err != nil || records != x.blocks {
		return errXZ
	}
	for range 2 * records {
		if _, err := binary.ReadUvarint(in); err != nil {
			return errXZ
		}
	}
	if err := x.c.skip(-(x.c.pos()-start)&3 + 4 + 10); err != nil {
		return err
	}
	tail, err := x.c.next(2)
	if err != nil {
		return unexpected(err)
	}
	if string(tail) != "YZ" {
		return errXZ
	}
	return nil
}

// fields reads numbers from a header and remembers whether it was too short.
type fields struct {
	b   []byte
	bad bool
}

// varint reads an xz multibyte integer (section 1.2).
func (f *fields) varint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.bad, f.b = true, nil
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) take(n uint64) []byte {
	if n > uint64(len(f.b)) {
		f.bad, f.b = true, nil
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}
