package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/lazaret/lazaret/internal/threat"
)

var errCPIO = errors.New("invalid cpio header")

// maxPath bounds the stored name of a cpio or ar member in bytes.
const maxPath = 16 << 10

// cpioHeader is what all cpio formats have in common.
type cpioHeader struct {
	mode     uint32
	nameSize int
	size     int64
	align    int64 // of name and content
	header   int64 // bytes of the header
}

// cpio unpacks the regular files of a cpio archive in one of the formats of
// cpio(5): newc ("070701"), crc ("070702"), odc ("070707") and old binary in
// both byte orders. Archives end with a member called TRAILER!!!; a missing one
// is damage.
func (w *walk) cpio(c *cursor) error {
	for {
		if err := w.b.check(w.ctx); err != nil {
			return err
		}
		h, err := readCPIO(c)
		if err != nil {
			return err
		}
		name, err := c.next(h.nameSize)
		if err != nil {
			return unexpected(err)
		}
		n := string(bytes.TrimRight(name, "\x00"))
		if err := c.skip(padding(h.header+int64(h.nameSize), h.align)); err != nil {
			return err
		}
		w.proof = true
		if n == "TRAILER!!!" {
			return nil
		}
		if h.mode&0xf000 == 0x8000 && h.size > 0 {
			err = c.stored(w, n, h.size)
		} else {
			err = c.skip(h.size)
		}
		if err != nil {
			return err
		}
		if err := c.skip(padding(h.size, h.align)); err != nil {
			return err
		}
	}
}

func readCPIO(c *cursor) (cpioHeader, error) {
	magic := c.peek(6)
	if len(magic) < 6 {
		return cpioHeader{}, unexpectedEnd
	}
	var h cpioHeader
	var err error
	switch string(magic) {
	case "070701", "070702":
		h, err = readNewc(c)
	case "070707":
		h, err = readOdc(c)
	case "07070X": // rpm's form for files over 4 GB
		return h, Fail(threat.ReasonUnknownMethod, "stripped cpio archives are not unpacked")
	default:
		h, err = readBinary(c)
	}
	if err == nil && (h.nameSize <= 0 || h.nameSize > maxPath || h.size < 0) {
		err = errCPIO
	}
	return h, err
}

// readNewc reads a header of fields of eight hexadecimal digits.
func readNewc(c *cursor) (cpioHeader, error) {
	b, err := c.next(110)
	if err != nil {
		return cpioHeader{}, unexpected(err)
	}
	bad := false
	field := func(i int) int64 {
		v, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
		bad = bad || err != nil
		return int64(v)
	}
	h := cpioHeader{mode: uint32(field(1)), size: field(6), nameSize: int(field(11)), align: 4, header: 110}
	if bad {
		return h, errCPIO
	}
	return h, nil
}

// readOdc reads a header of octal fields.
func readOdc(c *cursor) (cpioHeader, error) {
	b, err := c.next(76)
	if err != nil {
		return cpioHeader{}, unexpected(err)
	}
	bad := false
	field := func(from, n int) int64 {
		v, err := strconv.ParseUint(string(b[from:from+n]), 8, 62)
		bad = bad || err != nil
		return int64(v)
	}
	h := cpioHeader{mode: uint32(field(18, 6)), nameSize: int(field(59, 6)), size: field(65, 11), align: 1, header: 76}
	if bad {
		return h, errCPIO
	}
	return h, nil
}

// readBinary reads a header of 16-bit words; sizes are stored high word first
// in either byte order.
func readBinary(c *cursor) (cpioHeader, error) {
	b, err := c.next(26)
	if err != nil {
		return cpioHeader{}, unexpected(err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case b[0] == 0xc7 && b[1] == 0x71:
	case b[0] == 0x71 && b[1] == 0xc7:
		order = binary.BigEndian
	default:
		return cpioHeader{}, errCPIO
	}
	return cpioHeader{
		mode:     uint32(order.Uint16(b[6:])),
		nameSize: int(order.Uint16(b[20:])),
		size:     int64(order.Uint16(b[22:]))<<16 | int64(order.Uint16(b[24:])),
		align:    2, header: 26,
	}, nil
}

// padding is how many bytes follow n to reach a multiple of align, a power of
// two.
func padding(n, align int64) int64 { return -n & (align - 1) }
