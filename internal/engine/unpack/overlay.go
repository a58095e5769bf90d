package unpack

import (
	"encoding/binary"
	"io"
	"math"
)

// maxTableEntries bounds the section and segment tables that are looked at.
const maxTableEntries = 4096

// endOfELF returns the offset behind everything that an ELF file's headers
// describe (gABI, "ELF Header", "Program Header", "Sections"), size if they are
// not usable.
func endOfELF(head []byte, r io.ReaderAt, size int64) int64 {
	if len(head) < 64 {
		return size
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	wide := head[4] == 2
	word := func(b []byte, at64, at32 int) uint64 {
		if wide {
			return order.Uint64(b[at64:])
		}
		return uint64(order.Uint32(b[at32:]))
	}
	counts := 42 // e_phentsize in 32-bit files
	if wide {
		counts = 54
	}
	half := func(at int) int { return int(order.Uint16(head[counts+at:])) }
	end := int64(64)
	extend := func(off, n uint64) {
		if off <= math.MaxInt64 && n <= math.MaxInt64-off {
			end = max(end, int64(off+n))
		}
	}
	table := func(off uint64, entry, n, least int, use func(b []byte)) {
		extend(off, uint64(entry)*uint64(n))
		if entry < least || n > maxTableEntries || off > uint64(size) {
			return
		}
		var b [64]byte
		for i := range n {
			at := int64(off) + int64(i)*int64(entry)
			if k, _ := r.ReadAt(b[:least], at); k < least {
				return
			}
			use(b[:])
		}
	}
	segment, section := 32, 40
	if wide {
		segment, section = 56, 64
	}
	table(word(head, 32, 28), half(0), half(2), segment, func(b []byte) {
		extend(word(b, 8, 4), word(b, 32, 16))
	})
	table(word(head, 40, 32), half(4), half(6), section, func(b []byte) {
		if order.Uint32(b[4:]) != 8 { // SHT_NOBITS has no bytes in the file
			extend(word(b, 24, 16), word(b, 32, 20))
		}
	})
	return min(end, size)
}

// endOfPE returns the offset behind the last section of a PE file (Microsoft
// PE/COFF, "Section Table"), size if the headers are not usable. Signatures lie
// behind it as well; they are no containers.
func endOfPE(head []byte, size int64) int64 {
	if len(head) < 64 {
		return size
	}
	pe := int64(binary.LittleEndian.Uint32(head[60:]))
	if pe > int64(len(head))-24 {
		return size
	}
	sections := int64(binary.LittleEndian.Uint16(head[pe+6:]))
	at := pe + 24 + int64(binary.LittleEndian.Uint16(head[pe+20:]))
	end := at
	for i := range sections {
		s := at + 40*i
		if s+40 > int64(len(head)) {
			return size
		}
		end = max(end, int64(binary.LittleEndian.Uint32(head[s+20:]))+int64(binary.LittleEndian.Uint32(head[s+16:])))
	}
	return min(end, size)
}
