package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sort"

	"github.com/lazaret/lazaret/internal/threat"
)

// Signatures of zip records (PKWARE APPNOTE 6.3.10, section 4.3).
const (
	zipLocalSig   = "PK\x03\x04"
	zipCentralSig = "PK\x01\x02"
	zipEndSig     = "PK\x05\x06"
	zip64EndSig   = "PK\x06\x06"
	zip64LocSig   = "PK\x06\x07"
)

// zipTail is how far from the end of a file its end record can be: the record
// and a comment of 65,535 bytes.
const zipTail = 22 + 65535

var errZip = errors.New("invalid zip record")

// zipWalk is a zip archive being unpacked.
type zipWalk struct {
	*walk
	src  *Source
	r    io.ReaderAt
	size int64
	seen []span // local headers with their data, sorted, disjoint
}

// span is a range of the archive, end excluded.
type span struct{ start, end int64 }

// zip unpacks a zip archive by its central directory, then whatever local
// headers lie in ranges the directory does not mention: readers that stream
// would see those. Without a usable directory local headers are all there is.
func (w *walk) zip(src *Source) error {
	z := &zipWalk{walk: w, src: src, r: src.readerAt(), size: src.size()}
	dir, err := z.end()
	if err == nil {
		err = z.directory(dir)
	}
	if isFinal(err) || (err != nil && z.tentative && !z.proof) {
		return err
	}
	broken := err
	if err := z.gaps(); err != nil {
		return err
	}
	if broken != nil {
		w.notes.add("", Fail(threat.ReasonDamaged, "central directory is missing or damaged"))
	}
	return nil
}

// isFinal reports whether an error ends the walk: a limit or the visitor's.
func isFinal(err error) bool {
	var f *Failure
	return errors.Is(err, errStop) || errors.As(err, &f)
}

// zipDirectory is where the central directory lies.
type zipDirectory struct {
	start, end int64
	base       int64  // added to offsets in the archive: length of what precedes it
	count      uint64 // entries as declared
}

// end finds the end record: the last one whose comment fits into the file.
func (z *zipWalk) end() (zipDirectory, error) {
	n := min(z.size, zipTail)
	tail := z.src.slice(z.size-n, n)
	if tail == nil {
		tail = make([]byte, n)
		if _, err := z.r.ReadAt(tail, z.size-n); err != nil && err != io.EOF {
			return zipDirectory{}, err
		}
	}
	for at := bytes.LastIndex(tail, []byte(zipEndSig)); at >= 0; at = bytes.LastIndex(tail[:at], []byte(zipEndSig)) {
		if at+22 > len(tail) || at+22+int(binary.LittleEndian.Uint16(tail[at+20:])) > len(tail) {
			continue
		}
		if d, err := z.endRecord(tail[at:at+22], z.size-n+int64(at)); err == nil {
			return d, nil
		}
	}
	return zipDirectory{}, errZip
}

// endRecord interprets an end record at offset at, with its zip64 form if there
// is one, and checks that the directory begins where it says.
func (z *zipWalk) endRecord(b []byte, at int64) (zipDirectory, error) {
	count := uint64(binary.LittleEndian.Uint16(b[10:]))
	size := uint64(binary.LittleEndian.Uint32(b[12:]))
	offset := uint64(binary.LittleEndian.Uint32(b[16:]))
	end := at
	if count == 0xffff || size == 0xffffffff || offset == 0xffffffff {
		if r, pos, ok := z.end64(at); ok {
			count = binary.LittleEndian.Uint64(r[32:])
			size = binary.LittleEndian.Uint64(r[40:])
			offset = binary.LittleEndian.Uint64(r[48:])
			end = pos
		}
	}
	if size > uint64(end) || offset > uint64(z.size) {
		return zipDirectory{}, errZip
	}
	d := zipDirectory{start: end - int64(size), end: end, count: count}
	d.base = d.start - int64(offset)
	if count == 0 && size == 0 {
		return d, nil
	}
	if !z.has(d.start, zipCentralSig) {
		// Offsets may be right although the size is not.
		if !z.has(int64(offset), zipCentralSig) {
			return zipDirectory{}, errZip
		}
		d.start, d.base = int64(offset), 0
	}
	return d, nil
}

// end64 reads the zip64 end record that a locator before the end record points to.
func (z *zipWalk) end64(end int64) ([]byte, int64, bool) {
	var loc [20]byte
	if end < 20 || !z.read(loc[:], end-20) || string(loc[:4]) != zip64LocSig {
		return nil, 0, false
	}
	b := make([]byte, 56)
	// Behind another file the locator's offset is short by that file's length;
	// the record usually ends where the locator begins.
	for _, at := range []uint64{binary.LittleEndian.Uint64(loc[8:]), uint64(end - 20 - 56)} {
		if at < uint64(z.size) && z.read(b, int64(at)) && string(b[:4]) == zip64EndSig {
			return b, int64(at), true
		}
	}
	return nil, 0, false
}

// directory walks the central directory.
func (z *zipWalk) directory(d zipDirectory) error {
	c := z.cursor(z.part(d.start, d.end-d.start))
	defer z.release(c)
	for n := uint64(0); ; n++ {
		if err := z.b.check(z.ctx); err != nil {
			return z.ended(err)
		}
		if b := c.peek(46); len(b) < 46 || string(b[:4]) != zipCentralSig {
			if n < d.count && d.count != 0xffff {
				return errZip
			}
			return nil
		}
		e, err := readCentral(c)
		if err != nil {
			return err
		}
		if err := z.entry(e, d.base); err != nil && !errors.Is(err, errMember) {
			return err
		}
	}
}

// readCentral reads one entry of the central directory (section 4.3.12).
func readCentral(c *cursor) (zipEntry, error) {
	b, err := c.next(46)
	if err != nil {
		return zipEntry{}, err
	}
	e := zipEntry{
		flags:  binary.LittleEndian.Uint16(b[8:]),
		method: binary.LittleEndian.Uint16(b[10:]),
		crc:    binary.LittleEndian.Uint32(b[16:]),
		packed: uint64(binary.LittleEndian.Uint32(b[20:])),
		size:   uint64(binary.LittleEndian.Uint32(b[24:])),
		offset: uint64(binary.LittleEndian.Uint32(b[42:])),
	}
	name, extra, comment := int(binary.LittleEndian.Uint16(b[28:])), int(binary.LittleEndian.Uint16(b[30:])), int64(binary.LittleEndian.Uint16(b[32:]))
	if b, err = c.next(name + extra); err != nil {
		return e, err
	}
	e.name = string(b[:name])
	e.zip64(b[name:])
	return e, c.skip(comment)
}

// entry unpacks the member of a directory entry.
func (z *zipWalk) entry(e zipEntry, base int64) error {
	if e.offset > uint64(z.size) {
		z.refuse(e.name, Fail(threat.ReasonDamaged, "lies outside the archive"))
		return nil
	}
	at := base + int64(e.offset)
	if !z.has(at, zipLocalSig) && z.has(int64(e.offset), zipLocalSig) {
		at = int64(e.offset)
	}
	local, data, err := z.local(at)
	if err != nil {
		z.refuse(e.name, Fail(threat.ReasonDamaged, "has no local header"))
		return nil
	}
	if e.packed > uint64(z.size-data) {
		z.refuse(e.name, Fail(threat.ReasonDamaged, "lies outside the archive"))
		return nil
	}
	if !z.claim(span{at, data + int64(e.packed)}) {
		z.refuse(e.name, Fail(threat.ReasonDamaged, "overlaps another member"))
		return nil
	}
	// Some packers set the encryption flag in one header only, to stop scanners;
	// what opens such files ignores it.
	e.flags &^= ^local.flags & zipEncrypted
	return z.unpack(e, data)
}

// claim marks a range as used; false if it overlaps one that is.
func (z *zipWalk) claim(s span) bool {
	i := sort.Search(len(z.seen), func(i int) bool { return z.seen[i].end > s.start })
	if i < len(z.seen) && z.seen[i].start < s.end {
		return false
	}
	z.seen = append(z.seen, span{})
	copy(z.seen[i+1:], z.seen[i:])
	z.seen[i] = s
	return true
}

// has reports whether the four bytes at an offset are sig.
func (z *zipWalk) has(at int64, sig string) bool {
	var b [4]byte
	return z.read(b[:], at) && string(b[:]) == sig
}

// read fills b from an offset; false if the archive ends before.
func (z *zipWalk) read(b []byte, at int64) bool {
	if at < 0 || at > z.size-int64(len(b)) {
		return false
	}
	if s := z.src.slice(at, int64(len(b))); s != nil {
		copy(b, s)
		return true
	}
	n, _ := z.r.ReadAt(b, at)
	return n == len(b)
}
