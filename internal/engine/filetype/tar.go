package filetype

import "bytes"

// tarBlock is the size of a tar header.
const tarBlock = 512

// IsTarHeader reports whether the block starts with a tar header: its checksum
// must be right, which also recognises pre-POSIX archives that have no magic.
func IsTarHeader(block []byte) bool { return isTar(block) }

// isTar verifies the checksum of a tar header (POSIX.1 pax, "ustar
// Interchange Format"); old writers summed signed characters, so both sums
// count.
func isTar(h []byte) bool {
	if len(h) < tarBlock || h[0] == 0 {
		return false
	}
	stored, ok := octal(h[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64
	for i, c := range h[:tarBlock] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return stored == unsigned || stored == signed
}

// octal reads a field of octal digits padded with spaces and NULs.
func octal(b []byte) (int64, bool) {
	b = bytes.Trim(b, " \x00")
	if len(b) == 0 {
		return 0, false
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '7' {
			return 0, false
		}
		v = v<<3 | int64(c-'0')
	}
	return v, true
}
