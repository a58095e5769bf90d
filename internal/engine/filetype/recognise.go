package filetype

import (
	"bytes"
	"encoding/binary"
)

// HeadLen is how many bytes Recognise looks at; more do no harm.
const HeadLen = 4096

// Recognise names the type of content that starts with head. head must hold
// the first HeadLen bytes, or all of them if the content is shorter.
func Recognise(head []byte) Type {
	if len(head) == 0 {
		return Empty
	}
	if len(head) > HeadLen {
		head = head[:HeadLen]
	}
	// First, because a tar header starts with a name that anybody may choose,
	// "#!" or "MZ" for example, while its checksum is never right by chance.
	if isTar(head) {
		return Tar
	}
	if t := byMagic(head); t != "" {
		return t
	}
	return byText(head)
}

// byMagic decides by the first bytes, switching on the first of them so that a
// plain file costs a handful of comparisons.
func byMagic(h []byte) Type {
	has := func(magic string) bool { return len(h) >= len(magic) && string(h[:len(magic)]) == magic }
	switch h[0] {
	case 0x7f:
		if has("\x7fELF") {
			return ELF
		}
	case 'M':
		switch {
		case has("MZ"):
			return mz(h)
		case has("MSCF\x00\x00\x00\x00"):
			return CAB
		}
	case 'P':
		switch {
		case has("PK\x03\x04"):
			return zipChild(h)
		case has("PK\x05\x06"), has("PK\x07\x08PK\x03\x04"), has("PK00PK\x03\x04"):
			return Zip
		}
	case '7':
		if has("7z\xbc\xaf\x27\x1c") {
			return Seven
		}
	case 0x1f:
		switch {
		case has("\x1f\x8b\x08") && len(h) >= 10 && h[3]&0xe0 == 0:
			return Gzip
		case (has("\x1f\x9d") || has("\x1f\xa0")) && len(h) > 3 && !printable(h[2]):
			return Compress
		}
	case 'B':
		if isBzip2(h) {
			return Bzip2
		}
	case 0xfd:
		if has("\xfd7zXZ\x00") {
			return XZ
		}
	case 0x5d:
		if isLZMA(h) {
			return LZMA
		}
	case 0x28:
		if has("\x28\xb5\x2f\xfd") {
			return Zstd
		}
	case 0x04, 0x02:
		if has("\x04\x22\x4d\x18") || has("\x02\x21\x4c\x18") {
			return LZ4
		}
	case '0':
		if has("070701") || has("070702") || has("070707") {
			return CPIO
		}
	case 0xc7, 0x71:
		if (has("\xc7\x71") || has("\x71\xc7")) && isBinaryCPIO(h) {
			return CPIO
		}
	case '!':
		if has("!<arch>\n") {
			if bytes.HasPrefix(h[8:], []byte("debian-binary")) {
				return DEB
			}
			return AR
		}
	case 0xed:
		if has("\xed\xab\xee\xdb") {
			return RPM
		}
	case '#':
		if has("#!") {
			return Script
		}
	case '%':
		if has("%PDF-") {
			return PDF
		}
	case 0xd0:
		if has("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
			return OLE
		}
	case '{':
		if has("{\\rtf") {
			return RTF
		}
	case 0xca, 0xfe, 0xce, 0xcf:
		return machoOrJava(h)
	case 'd':
		if has("dex\n") {
			return DEX
		}
	case 0x00:
		switch {
		case has("\x00asm"):
			return WASM
		case len(h) >= 12 && string(h[4:8]) == "ftyp":
			return Media
		}
	case 0x89:
		switch {
		case has("\x89PNG\r\n\x1a\n"):
			return PNG
		case has("\x89LZO\x00\r\n\x1a\n"):
			return Lzop
		}
	case 0xff:
		if has("\xff\xd8\xff") {
			return JPEG
		}
	case 'G':
		if has("GIF87a") || has("GIF89a") {
			return GIF
		}
	case 'h':
		if has("hsqs") && len(h) >= 96 {
			return Squashfs
		}
	case 'L':
		switch {
		case has("LZIP\x01"):
			return Lzip
		case has("LRZI\x00"):
			return LRZip
		}
	case 0x60:
		if has("\x60\xea") && isARJ(h) {
			return ARJ
		}
	case 'O':
		if has("OggS\x00") {
			return Media
		}
	case 'I':
		if has("ID3\x02") || has("ID3\x03") || has("ID3\x04") {
			return Media
		}
	}
	switch {
	case has("Rar!\x1a\x07"):
		return RAR
	case has("RIFF") && len(h) >= 12:
		return Media
	case len(h) >= 22 && h[2] == '-' && h[3] == 'l' && (h[4] == 'h' || h[4] == 'z') && h[6] == '-':
		return LHA
	case len(h) >= 8 && h[0]&0xf0 == 0x50 && h[1] == 0x2a && h[2] == 0x4d && h[3] == 0x18:
		return skippable(h)
	case has("\xef\xbb\xbf#!"):
		return Script
	}
	return ""
}

// skippable tells zstd from LZ4 behind skippable frames, which both formats
// share (RFC 8878 section 3.1.2); zstd's decoder is asked when neither follows
// in the head.
func skippable(h []byte) Type {
	for i := 0; i < 16 && len(h) >= 8 && h[0]&0xf0 == 0x50 && string(h[1:4]) == "\x2a\x4d\x18"; i++ {
		n := uint64(binary.LittleEndian.Uint32(h[4:])) + 8
		if n >= uint64(len(h)) {
			return Zstd
		}
		h = h[n:]
	}
	if bytes.HasPrefix(h, []byte("\x04\x22\x4d\x18")) {
		return LZ4
	}
	return Zstd
}

func isBzip2(h []byte) bool {
	return len(h) >= 10 && string(h[:3]) == "BZh" && h[3] >= '1' && h[3] <= '9' &&
		(string(h[4:10]) == "\x31\x41\x59\x26\x53\x59" || string(h[4:10]) == "\x17\x72\x45\x38\x50\x90")
}

// isLZMA accepts headers of the .lzma format as written by xz and lzma: there
// is no magic, so the usual properties byte, a dictionary of 2^n or 2^n+2^(n-1)
// bytes and a plausible size (or the "unknown" mark) must agree, and the range
// coder's first byte is always zero.
func isLZMA(h []byte) bool {
	if len(h) < 14 || h[13] != 0 {
		return false
	}
	dict := binary.LittleEndian.Uint32(h[1:])
	size := binary.LittleEndian.Uint64(h[5:])
	if dict < 4096 || (size != 1<<64-1 && size > 1<<40) {
		return false
	}
	low := dict & -dict // lowest set bit
	rest := dict &^ low
	return rest == 0 || rest == low<<1
}

func isBinaryCPIO(h []byte) bool {
	if len(h) < 26 {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if h[0] == 0x71 {
		order = binary.BigEndian
	}
	mode, name := order.Uint16(h[6:]), order.Uint16(h[20:])
	return mode&0xf000 != 0 && name > 0 && name <= 4096
}

func isARJ(h []byte) bool {
	if len(h) < 12 {
		return false
	}
	n := binary.LittleEndian.Uint16(h[2:])
	return n >= 30 && n <= 2600 && h[4] >= 30 && h[4] <= 43 && h[5] < 20 && h[10] == 2
}

func mz(h []byte) Type {
	if len(h) >= 64 {
		at := binary.LittleEndian.Uint32(h[60:])
		if int64(at)+4 > int64(len(h)) && len(h) < HeadLen {
			return DOS
		}
		if int64(at)+4 <= int64(len(h)) && string(h[at:at+4]) != "PE\x00\x00" {
			return DOS
		}
		return PE
	}
	if len(h) < 28 {
		return "" // "MZ" as the start of a text
	}
	return DOS
}

// machoOrJava tells Mach-O (thin, either byte order, or universal) from Java
// class files, which share 0xcafebabe with universal binaries: these hold few
// architectures, class files have a version of at least 45 in that place.
func machoOrJava(h []byte) Type {
	if len(h) < 8 {
		return ""
	}
	switch binary.BigEndian.Uint32(h) {
	case 0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe:
		return MachO
	case 0xcafebabe:
		if binary.BigEndian.Uint32(h[4:]) < 45 {
			return MachO
		}
		return Java
	}
	return ""
}

func printable(c byte) bool { return c >= 0x20 && c < 0x7f }
