package unpack

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/lazaret/lazaret/internal/threat"
)

var errLZMA2 = errors.New("invalid LZMA2 data")

// lzma2Reader reads LZMA2 data (xz file format, section 5.3.1; the chunks are
// described in LZMA SDK's Lzma2Dec.c): chunks of at most 64 KB packed and 2 MB
// unpacked, stored or LZMA. It takes exactly the chunks from its source.
type lzma2Reader struct {
	r     io.Reader
	d     lzmaDecoder
	chunk []byte
	left  int  // bytes of the current chunk to come
	raw   bool // the chunk is stored
	state int  // what the next chunk must reset: 3 all, 2 properties, 1 state, 0 nothing
	err   error
}

// reset opens LZMA2 data with the dictionary size byte of its filter
// properties. size is the length of the content, -1 if not known.
func (z *lzma2Reader) reset(r io.Reader, dictByte byte, size int64) error {
	if dictByte > 40 {
		return errLZMA2
	}
	dict := uint64(2|dictByte&1) << (dictByte/2 + 11)
	if dict > maxWindow && (size < 0 || size > maxWindow) {
		return Fail(threat.ReasonTooLarge, "needs a window of more than %d bytes to be unpacked", maxWindow)
	}
	z.r, z.left, z.state, z.err = r, 0, 3, nil
	z.d.win.init(uint32(min(dict, maxWindow)))
	return nil
}

// Read implements io.Reader.
func (z *lzma2Reader) Read(p []byte) (int, error) {
	for z.err == nil && z.left == 0 {
		z.err = z.header()
	}
	if z.err != nil || len(p) == 0 {
		return 0, z.err
	}
	w := &z.d.win
	n := min(w.room(), len(p), z.left)
	start := w.pos
	if z.raw {
		var k int
		k, z.err = io.ReadFull(z.r, w.buf[w.pos:w.pos+n])
		w.pos += k
		w.total += uint64(k)
		z.err = unexpected(z.err)
	} else if z.err = z.d.decode(n); z.err == nil && z.d.eos {
		z.err = errLZMA2
	}
	n = copy(p, w.buf[start:w.pos])
	z.left -= n
	if z.err == nil && z.left == 0 && !z.raw && (z.d.rem > 0 || z.d.rc.pos != len(z.d.rc.in)) {
		z.err = errLZMA2
	}
	return n, z.err
}

// header reads a chunk's control byte and sizes and, if it is compressed, the
// chunk.
func (z *lzma2Reader) header() error {
	var h [6]byte
	if _, err := io.ReadFull(z.r, h[:1]); err != nil {
		return unexpected(err)
	}
	control := h[0]
	switch {
	case control == 0:
		return io.EOF
	case control < 0x80:
		if control > 2 || (control == 2 && z.state == 3) {
			return errLZMA2
		}
		if _, err := io.ReadFull(z.r, h[1:3]); err != nil {
			return unexpected(err)
		}
		if control == 1 {
			z.d.win.reset()
			z.state = 2
		}
		z.left, z.raw = int(binary.BigEndian.Uint16(h[1:]))+1, true
		return nil
	}
	n := 5
	reset := int(control >> 5 & 3)
	if reset >= 2 {
		n = 6
	}
	if reset < z.state {
		return errLZMA2
	}
	if _, err := io.ReadFull(z.r, h[1:n]); err != nil {
		return unexpected(err)
	}
	z.left, z.raw = int(control&0x1f)<<16+int(binary.BigEndian.Uint16(h[1:]))+1, false
	packed := int(binary.BigEndian.Uint16(h[3:])) + 1
	if reset == 3 {
		z.d.win.reset()
	}
	if reset >= 2 {
		if err := z.d.properties(h[5]); err != nil {
			return err
		}
		if z.d.lc+z.d.lp > 4 {
			return errLZMA2
		}
	}
	if reset >= 1 {
		z.d.resetState()
	}
	z.state = 0
	if cap(z.chunk) < packed {
		z.chunk = make([]byte, 64<<10)
	}
	z.chunk = z.chunk[:packed]
	if _, err := io.ReadFull(z.r, z.chunk); err != nil {
		return unexpected(err)
	}
	z.d.rc = rangeDecoder{in: z.chunk}
	return z.d.rc.start()
}
