package unpack

import (
	"encoding/binary"
	"errors"
	"unicode/utf16"

	"github.com/lazaret/lazaret/internal/threat"
)

// Property ids of 7zFormat.txt.
const (
	sevenEndID     = 0x00
	sevenHeaderID  = 0x01
	sevenArchiveID = 0x02
	sevenExtraID   = 0x03
	sevenStreamsID = 0x04
	sevenFilesID   = 0x05
	sevenPackID    = 0x06
	sevenUnpackID  = 0x07
	sevenSubID     = 0x08
	sevenSizeID    = 0x09
	sevenCRCID     = 0x0a
	sevenFolderID  = 0x0b
	sevenCodersID  = 0x0c
	sevenNumberID  = 0x0d
	sevenEmptyID   = 0x0e
	sevenNamesID   = 0x11
	sevenEncodedID = 0x17
	maxSevenCoders = 32 // 7-Zip's own limit
)

var errSeven = errors.New("invalid 7z header")

// sevenHeader is the part of an archive's header that unpacking needs.
type sevenHeader struct {
	streams  sevenStreams
	numFiles uint64
	empty    []byte // bit vector of files without content, nil if there are none
	names    []byte // UTF-16LE, each ended by a zero
}

// sevenStreams describes packed streams and the folders made of them.
type sevenStreams struct {
	packPos uint64
	packed  []uint64 // sizes
	folders []sevenFolder
}

// sevenFolder is a graph of coders over some packed streams.
type sevenFolder struct {
	coders []sevenCoder
	bonds  []sevenBond // in-stream takes its data from out-stream
	inputs []uint64    // in-streams that are packed streams
	sizes  []uint64    // unpacked size per out-stream
	first  int         // index of the first packed stream
	crc    uint32
	hasCRC bool
	sub    []sevenSub // members
}

type sevenCoder struct {
	id      uint64
	in, out uint64
	props   []byte
}

type sevenBond struct{ in, out uint64 }

type sevenSub struct {
	size   uint64
	crc    uint32
	hasCRC bool
}

// mainOut is the out-stream that no coder takes: the folder's content.
func (f *sevenFolder) mainOut() int {
next:
	for i := range f.sizes {
		for _, b := range f.bonds {
			if b.out == uint64(i) {
				continue next
			}
		}
		return i
	}
	return -1
}

func (f *sevenFolder) size() uint64 {
	if i := f.mainOut(); i >= 0 {
		return f.sizes[i]
	}
	return 0
}

// packedSize is the length of the folder's packed streams in bytes.
func (f *sevenFolder) packedSize(st *sevenStreams) uint64 {
	var n uint64
	for i := range f.inputs {
		n += st.packed[f.first+i]
	}
	return n
}

// sevenParser reads header structures. Numbers of things are believed only as
// far as the bytes that describe the things are there.
type sevenParser struct{ fields }

func (p *sevenParser) byte() byte {
	b := p.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// number reads 7z's variable length integer: the leading one bits of the first
// byte count the bytes that follow.
func (p *sevenParser) number() uint64 {
	first := p.byte()
	var v uint64
	mask := byte(0x80)
	for i := range 8 {
		if first&mask == 0 {
			return v | uint64(first&(mask-1))<<(8*i)
		}
		v |= uint64(p.byte()) << (8 * i)
		mask >>= 1
	}
	return v
}

// count reads a number of things that take at least one byte each.
func (p *sevenParser) count() int {
	n := p.number()
	if n > uint64(len(p.b)) {
		p.bad = true
		return 0
	}
	return int(n)
}

// bits reads a bit vector of n bits, most significant first.
func (p *sevenParser) bits(n uint64) []byte {
	if n > 8*uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	return p.take((n + 7) / 8)
}

func bit(v []byte, i int) bool { return i/8 < len(v) && v[i/8]&(0x80>>(i%8)) != 0 }

// digests reads CRC-32 values that are defined for some of n things.
func (p *sevenParser) digests(n int, set func(i int, crc uint32)) {
	all := p.byte() != 0
	var defined []byte
	if !all {
		defined = p.bits(uint64(n))
	}
	for i := 0; i < n && !p.bad; i++ {
		if all || bit(defined, i) {
			if b := p.take(4); b != nil {
				set(i, binary.LittleEndian.Uint32(b))
			}
		}
	}
}

// header reads the archive header after its id.
func (p *sevenParser) header() (*sevenHeader, error) {
	h := new(sevenHeader)
	id := p.byte()
	if id == sevenArchiveID {
		for p.byte() != sevenEndID && !p.bad {
			p.take(p.number())
		}
		id = p.byte()
	}
	if id == sevenExtraID {
		if _, err := p.streams(); err != nil {
			return nil, err
		}
		id = p.byte()
	}
	if id == sevenStreamsID {
		st, err := p.streams()
		if err != nil {
			return nil, err
		}
		h.streams = *st
		id = p.byte()
	}
	if id == sevenFilesID {
		if err := p.files(h); err != nil {
			return nil, err
		}
		id = p.byte()
	}
	if p.bad || id != sevenEndID {
		return nil, errSeven
	}
	return h, nil
}

// files reads the list of files; only names and which are empty matter here.
func (p *sevenParser) files(h *sevenHeader) error {
	h.numFiles = p.number()
	for !p.bad {
		id := p.byte()
		if id == sevenEndID {
			return nil
		}
		prop := sevenParser{fields{b: p.take(p.number())}}
		switch id {
		case sevenEmptyID:
			h.empty = prop.bits(h.numFiles)
		case sevenNamesID:
			if prop.byte() != 0 {
				return Fail(threat.ReasonUnknownMethod, "names are stored outside the header")
			}
			h.names = prop.b
		}
		p.bad = p.bad || prop.bad
	}
	return errSeven
}

// sevenFiles yields the names of files that have content.
type sevenFiles struct {
	h     *sevenHeader
	i     int
	names []byte
}

func (h *sevenHeader) files() *sevenFiles { return &sevenFiles{h: h, names: h.names} }

// next returns the name of the next file with content, or "" if there are more
// streams than files.
func (f *sevenFiles) next() string {
	for uint64(f.i) < f.h.numFiles && len(f.names) >= 2 {
		name := f.name()
		f.i++
		if !bit(f.h.empty, f.i-1) {
			return name
		}
	}
	return ""
}

func (f *sevenFiles) name() string {
	var u []uint16
	for len(f.names) >= 2 {
		c := binary.LittleEndian.Uint16(f.names)
		f.names = f.names[2:]
		if c == 0 {
			break
		}
		if len(u) < maxPath {
			u = append(u, c)
		}
	}
	return string(utf16.Decode(u))
}
