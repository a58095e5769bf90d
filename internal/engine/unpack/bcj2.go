package unpack

import (
	"bufio"
	"encoding/binary"
	"io"
)

// bcj2Reader undoes 7z's BCJ2 filter for x86 programs (LZMA SDK, Bcj2.c):
// targets of CALL and of JMP/Jcc are kept in streams of their own, and a range
// coded stream says which of the opcodes in the main stream had theirs taken.
type bcj2Reader struct {
	main  io.ByteReader
	call  io.Reader
	jump  io.Reader
	rc    rangeDecoder
	probs [2 + 256]uint16
	prev  byte
	pos   uint32
	queue []byte // of target: bytes of a target still to be given out
	buf   [4]byte
	err   error
}

// newBCJ2 opens the filter over its four streams: main, call, jump, range coder.
func newBCJ2(ins []io.Reader) (*bcj2Reader, error) {
	r := &bcj2Reader{main: bufio.NewReader(ins[0]), call: bufio.NewReader(ins[1]), jump: bufio.NewReader(ins[2])}
	r.rc.src = ins[3]
	fill(r.probs[:])
	return r, r.rc.start()
}

// Read implements io.Reader.
func (r *bcj2Reader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.queue) > 0 {
			k := copy(p[n:], r.queue)
			r.queue = r.queue[k:]
			n += k
			continue
		}
		if r.err != nil {
			break
		}
		b, err := r.main.ReadByte()
		if err != nil {
			r.err = err
			break
		}
		p[n] = b
		n++
		r.pos++
		if !(b&0xfe == 0xe8 || (r.prev == 0x0f && b&0xf0 == 0x80)) {
			r.prev = b
			continue
		}
		r.branch(b)
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// branch handles what follows an opcode that may have a target.
func (r *bcj2Reader) branch(b byte) {
	prob := &r.probs[257]
	switch b {
	case 0xe8:
		prob = &r.probs[r.prev]
	case 0xe9:
		prob = &r.probs[256]
	}
	r.prev = b
	if r.rc.bit(prob) == 0 {
		return
	}
	from := r.jump
	if b == 0xe8 {
		from = r.call
	}
	if _, err := io.ReadFull(from, r.buf[:]); err != nil {
		r.err = unexpected(err)
		return
	}
	r.pos += 4
	binary.LittleEndian.PutUint32(r.buf[:], binary.BigEndian.Uint32(r.buf[:])-r.pos)
	r.queue, r.prev = r.buf[:], r.buf[3]
}
