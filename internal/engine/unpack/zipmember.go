package unpack

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/lazaret/lazaret/internal/threat"
)

// zipEncrypted is the general purpose flag of encrypted members.
const zipEncrypted = 1

// Compression methods (APPNOTE section 4.4.5).
const (
	zipStored  = 0
	zipDeflate = 8
	zipBzip2   = 12
	zipLZMA    = 14
	zipZstdOld = 20
	zipZstd    = 93
	zipXZ      = 95
	zipAES     = 99 // WinZip AES
)

// zipEntry is a member's header.
type zipEntry struct {
	name         string
	flags        uint16
	method       uint16
	crc          uint32
	packed, size uint64
	offset       uint64
	unsized      bool // sizes follow the data
}

// zip64 takes the sizes that do not fit into 32 bits from the extra fields
// (section 4.5.3).
func (e *zipEntry) zip64(extra []byte) {
	for len(extra) >= 4 {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return
		}
		if id == 1 {
			f := extra[:n]
			for _, v := range []*uint64{&e.size, &e.packed, &e.offset} {
				if *v == 0xffffffff && len(f) >= 8 {
					*v = binary.LittleEndian.Uint64(f)
					f = f[8:]
				}
			}
			return
		}
		extra = extra[n:]
	}
}

// local reads the local header at an offset and returns where its data begins
// (section 4.3.7).
func (z *zipWalk) local(at int64) (zipEntry, int64, error) {
	var b [30]byte
	if !z.read(b[:], at) || string(b[:4]) != zipLocalSig {
		return zipEntry{}, 0, errZip
	}
	e := zipEntry{
		flags:  binary.LittleEndian.Uint16(b[6:]),
		method: binary.LittleEndian.Uint16(b[8:]),
		crc:    binary.LittleEndian.Uint32(b[14:]),
		packed: uint64(binary.LittleEndian.Uint32(b[18:])),
		size:   uint64(binary.LittleEndian.Uint32(b[22:])),
	}
	name, extra := int64(binary.LittleEndian.Uint16(b[26:])), int64(binary.LittleEndian.Uint16(b[28:]))
	data := at + 30 + name + extra
	if data > z.size {
		return zipEntry{}, 0, errZip
	}
	return e, data, nil
}

// unpack hands a member whose data begins at an offset to the visitor.
func (z *zipWalk) unpack(e zipEntry, data int64) error {
	z.proof = true
	if strings.HasSuffix(e.name, "/") && e.packed == 0 && e.size == 0 && !e.unsized {
		return nil
	}
	if e.flags&zipEncrypted != 0 || e.method == zipAES {
		z.refuse(e.name, Fail(threat.ReasonEncrypted, "is encrypted"))
		return nil
	}
	packed := int64(min(e.packed, uint64(z.size-data)))
	if e.method == zipStored {
		if s := z.src.slice(data, packed); s != nil {
			if e.size != e.packed || crc32.ChecksumIEEE(s) != e.crc {
				z.refuse(e.name, Fail(threat.ReasonDamaged, "checksum is wrong"))
			}
			return z.member(e.name, packed, s, nil, nil)
		}
	}
	c := z.cursor(z.part(data, packed))
	defer z.release(c)
	r, done, err := z.method(e, c)
	if err != nil {
		var f *Failure
		if !errors.As(err, &f) {
			f = Fail(threat.ReasonDamaged, "%s", describe(err))
		}
		z.refuse(e.name, f)
		return nil
	}
	defer done()
	count := c.pos
	if e.method == zipStored {
		count = nil
	}
	return z.member(e.name, int64(min(e.size, 1<<62)), nil, &checked{r: r, want: e.crc, size: e.size}, count)
}

// part is a range of the archive as a source.
func (z *zipWalk) part(at, n int64) *Source {
	if s := z.src.slice(at, n); s != nil {
		return &Source{Data: s}
	}
	return &Source{At: io.NewSectionReader(z.r, at, n), Size: n}
}

// method opens the decoder of a member's data.
func (z *zipWalk) method(e zipEntry, c *cursor) (r io.Reader, done func(), err error) {
	done = func() {}
	switch e.method {
	case zipStored:
		return c.input(), done, nil
	case zipDeflate:
		r, done = z.deflate(c.input())
		return r, done, nil
	case zipBzip2:
		return bzip2.NewReader(c.input()), done, nil
	case zipLZMA:
		r, err = zipLZMAReader(e, c)
		return r, done, err
	case zipZstd, zipZstdOld:
		return z.zstd(c.input(), c.peek(zstd.HeaderMaxSize))
	case zipXZ:
		return &xzReader{c: c, w: z.walk}, done, nil
	}
	return nil, done, Fail(threat.ReasonUnknownMethod, "compression method %d is not known", e.method)
}

// deflate opens a deflate decoder; done gives it back for reuse.
func (w *walk) deflate(in flate.Reader) (io.Reader, func()) {
	var r io.ReadCloser
	if n := len(w.u.deflates); n > 0 {
		r, w.u.deflates = w.u.deflates[n-1], w.u.deflates[:n-1]
		_ = r.(flate.Resetter).Reset(in, nil)
	} else {
		r = flate.NewReader(in)
	}
	return r, func() {
		if len(w.u.deflates) < maxKept {
			w.u.deflates = append(w.u.deflates, r)
		}
	}
}

// zipLZMAReader opens LZMA data as zip stores it: version, length of the
// properties, properties (section 5.8.8). Flag bit 1 says that an end mark
// follows the data.
func zipLZMAReader(e zipEntry, c *cursor) (io.Reader, error) {
	h, err := c.next(9)
	if err != nil {
		return nil, unexpected(err)
	}
	if binary.LittleEndian.Uint16(h[2:]) != 5 {
		return nil, errLZMA
	}
	size := int64(-1)
	if e.flags&2 == 0 {
		if size = int64(e.size); size < 0 || e.unsized {
			return nil, errLZMA
		}
	}
	return newLZMA(c.input(), h[4], binary.LittleEndian.Uint32(h[5:]), size)
}

// checked verifies length and CRC-32 of a member at its end.
type checked struct {
	r    io.Reader
	want uint32
	size uint64
	sum  uint32
	n    uint64
	// unchecked members have no checksum.
	unchecked bool
	// late replaces want and size when they follow the data.
	late func() (crc uint32, size uint64, ok bool)
}

// Read implements io.Reader.
func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum = crc32.Update(c.sum, crc32.IEEETable, p[:n])
	c.n += uint64(n)
	if err == io.EOF {
		if c.late != nil {
			var ok bool
			if c.want, c.size, ok = c.late(); !ok {
				return n, Fail(threat.ReasonDamaged, "data descriptor is missing")
			}
		}
		if c.n != c.size || (c.sum != c.want && !c.unchecked) {
			err = Fail(threat.ReasonDamaged, "checksum is wrong")
		}
	}
	return n, err
}

// gaps looks at the ranges between the members of the directory and unpacks
// local headers that are found there, in order.
func (z *zipWalk) gaps() error {
	used := append([]span(nil), z.seen...)
	pos := int64(0)
	for _, s := range append(used, span{z.size, z.size}) {
		// Behind another file's content a signature may be there by chance, so
		// before the first member only an archive's own start is looked at.
		if s.start-pos >= 30 && (pos > 0 || len(used) == 0 || z.has(0, zipLocalSig)) {
			if err := z.scan(pos, s.start); err != nil {
				return err
			}
		}
		pos = s.end
	}
	return nil
}

// scan unpacks the local headers found between two offsets.
func (z *zipWalk) scan(from, to int64) error {
	c := z.cursor(z.part(from, to-from))
	defer z.release(c)
	for {
		if err := z.b.check(z.ctx); err != nil {
			return z.ended(err)
		}
		b := c.peek(bufferSize)
		if len(b) < 30 {
			return nil
		}
		i := bytes.Index(b, []byte(zipLocalSig))
		if i < 0 {
			if err := c.skip(int64(len(b) - 3)); err != nil {
				return err
			}
			continue
		}
		if err := c.skip(int64(i)); err != nil {
			return err
		}
		at := from + c.pos()
		end, err := z.loose(at, to)
		if err != nil && !errors.Is(err, errMember) {
			return err
		}
		if err := c.skip(max(end-at, 4)); err != nil {
			return nil // the member reaches to the end
		}
	}
}

// loose unpacks a member by its local header alone and returns where it ends.
func (z *zipWalk) loose(at, to int64) (int64, error) {
	e, data, err := z.local(at)
	if err != nil || data > to {
		return at, nil
	}
	var h [30]byte
	z.read(h[:], at)
	nameLen := int64(binary.LittleEndian.Uint16(h[26:]))
	raw := make([]byte, data-at-30)
	if nameLen == 0 || !z.read(raw, at+30) || h[5] > 20 {
		return at, nil // chance, not a header
	}
	e.name = string(raw[:nameLen])
	e.zip64(raw[nameLen:])
	if e.flags&8 != 0 && e.packed == 0 {
		return z.looseUnsized(e, data, to)
	}
	if e.packed > uint64(to-data) {
		z.refuse(e.name, Fail(threat.ReasonDamaged, "content ends too early"))
		e.packed = uint64(to - data)
	}
	end := data + int64(e.packed)
	return end, z.unpack(e, data)
}

// looseUnsized unpacks a member whose sizes follow its data (flag bit 3).
func (z *zipWalk) looseUnsized(e zipEntry, data, to int64) (int64, error) {
	e.unsized = true
	switch {
	case e.flags&zipEncrypted != 0 || e.method == zipAES:
		z.refuse(e.name, Fail(threat.ReasonEncrypted, "is encrypted"))
		return data, nil
	case e.method != zipDeflate:
		z.refuse(e.name, Fail(threat.ReasonDamaged, "its length is not known without a central directory"))
		return data, nil
	}
	c := z.cursor(z.part(data, to-data))
	defer z.release(c)
	r, done := z.deflate(c.input())
	defer done()
	late := func() (uint32, uint64, bool) {
		b := c.peek(16)
		if bytes.HasPrefix(b, []byte("PK\x07\x08")) {
			b = b[4:]
		}
		if len(b) < 12 {
			return 0, 0, false
		}
		return binary.LittleEndian.Uint32(b), uint64(binary.LittleEndian.Uint32(b[8:])), true
	}
	err := z.member(e.name, -1, nil, &checked{r: r, late: late}, c.pos)
	return data + c.pos(), err
}
