package unpack

import "encoding/binary"

// The branch converters below are described in the xz file format, section
// 5.3.2, and in LZMA SDK's Bra.c: each finds the call instructions of its
// processor and turns their absolute targets back into relative ones.

func powerPC(b []byte, pos uint32) int {
	i := 0
	for ; i+4 <= len(b); i += 4 {
		if v := binary.BigEndian.Uint32(b[i:]); v&0xfc000003 == 0x48000001 {
			binary.BigEndian.PutUint32(b[i:], 0x48000001|(v&0x03fffffc-(pos+uint32(i)))&0x03fffffc)
		}
	}
	return i
}

func arm(b []byte, pos uint32) int {
	i := 0
	for ; i+4 <= len(b); i += 4 {
		if b[i+3] == 0xeb { // BL
			v := binary.LittleEndian.Uint32(b[i:]) & 0xffffff
			v = (v<<2 - (pos + uint32(i) + 8)) >> 2 & 0xffffff
			binary.LittleEndian.PutUint32(b[i:], 0xeb000000|v)
		}
	}
	return i
}

func armThumb(b []byte, pos uint32) int {
	i := 0
	for ; i+4 <= len(b); i += 2 {
		if b[i+1]&0xf8 != 0xf0 || b[i+3]&0xf8 != 0xf8 { // the two halves of BL
			continue
		}
		hi, lo := uint32(binary.LittleEndian.Uint16(b[i:])), uint32(binary.LittleEndian.Uint16(b[i+2:]))
		v := ((hi&0x7ff<<11|lo&0x7ff)<<1 - (pos + uint32(i) + 4)) >> 1
		binary.LittleEndian.PutUint16(b[i:], uint16(0xf000|v>>11&0x7ff))
		binary.LittleEndian.PutUint16(b[i+2:], uint16(0xf800|v&0x7ff))
		i += 2
	}
	return i
}

func sparc(b []byte, pos uint32) int {
	i := 0
	for ; i+4 <= len(b); i += 4 {
		v := binary.BigEndian.Uint32(b[i:])
		if v>>22 != 0x100 && v>>22 != 0x1ff {
			continue
		}
		v = (v<<2 - (pos + uint32(i))) >> 2
		v = (0-(v>>22&1))<<22&0x3fffffff | v&0x3fffff | 0x40000000
		binary.BigEndian.PutUint32(b[i:], v)
	}
	return i
}

func arm64(b []byte, pos uint32) int {
	i := 0
	for ; i+4 <= len(b); i += 4 {
		v, pc := binary.LittleEndian.Uint32(b[i:]), pos+uint32(i)
		switch {
		case v>>26 == 0x25: // BL
			v = 0x94000000 | (v-pc>>2)&0x03ffffff
		case v&0x9f000000 == 0x90000000: // ADRP with a target within 512 MB
			t := v>>29&3 | v>>3&0x1ffffc
			if (t+0x020000)&0x1c0000 != 0 {
				continue
			}
			t -= pc >> 12
			v = v&0x9000001f | t&3<<29 | t&0x3fffc<<3 | (0-t&0x020000)&0xe00000
		default:
			continue
		}
		binary.LittleEndian.PutUint32(b[i:], v)
	}
	return i
}

// x86 converts CALL and JMP with 32-bit targets. A byte looks like a call by
// chance quite often, so whether one is converted depends on which of the
// preceding bytes looked like one too; mask remembers those.
type x86 struct {
	mask uint32
	last uint32 // distance back to the last opcode from the end of the previous run
	used bool
}

// signByte reports whether b can be the top byte of a target within 16 MB.
func signByte(b byte) bool { return b == 0 || b == 0xff }

func (x *x86) convert(b []byte, pos uint32) int {
	const none = ^uint32(0)
	if len(b) < 5 {
		return 0
	}
	// prev is the index of the last opcode, modulo 2^32.
	prev := none - 4
	if x.used {
		prev = 0 - x.last
	}
	i := 0
	for ; i+5 <= len(b); i++ {
		if b[i]&0xfe != 0xe8 {
			continue
		}
		dist := uint32(i) - prev
		prev = uint32(i)
		if dist > 3 {
			x.mask = 0
		} else if x.mask = x.mask << (dist - 1) & 7; x.mask != 0 {
			// which of the following bytes could belong to an earlier call
			at := [8]int{0, 1, 2, 2, 3, 3, 3, 3}[x.mask]
			allowed := x.mask == 1 || x.mask == 2 || x.mask == 4
			if !allowed || signByte(b[i+4-at]) {
				x.mask = x.mask<<1&7 | 1
				continue
			}
		}
		if !signByte(b[i+4]) {
			x.mask = x.mask<<1&7 | 1
			continue
		}
		v := binary.LittleEndian.Uint32(b[i+1:])
		for {
			v -= pos + uint32(i) + 5
			if x.mask == 0 {
				break
			}
			shift := [8]uint32{0, 8, 16, 16, 24, 24, 24, 24}[x.mask]
			if !signByte(byte(v >> (24 - shift))) {
				break
			}
			v ^= 1<<(32-shift) - 1
		}
		v &= 0x01ffffff
		v |= 0 - v&0x01000000
		binary.LittleEndian.PutUint32(b[i+1:], v)
		i += 4
	}
	x.last, x.used = uint32(i)-prev, true
	return i
}
