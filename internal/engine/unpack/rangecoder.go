package unpack

import (
	"errors"
	"io"
)

var errLZMA = errors.New("invalid LZMA data")

// rangeDecoder is LZMA's adaptive binary range decoder ("LZMA specification",
// LZMA SDK). Input that ends early is read as zeros and remembered in err.
type rangeDecoder struct {
	src  io.Reader // nil: in is all there is
	buf  []byte
	in   []byte
	pos  int
	rng  uint32
	code uint32
	err  error
}

const (
	probInit  = 1 << 10 // one half of 2^11
	probBits  = 11
	probMoves = 5
	rangeTop  = 1 << 24
)

// start reads the five bytes that begin a range coded stream.
func (d *rangeDecoder) start() error {
	d.rng, d.code = 0xffffffff, 0
	if d.next() != 0 && d.err == nil {
		return errLZMA
	}
	for range 4 {
		d.code = d.code<<8 | uint32(d.next())
	}
	return d.err
}

func (d *rangeDecoder) next() byte {
	if d.pos < len(d.in) {
		b := d.in[d.pos]
		d.pos++
		return b
	}
	return d.refill()
}

func (d *rangeDecoder) refill() byte {
	if d.err != nil {
		return 0
	}
	if d.src == nil {
		d.err = io.ErrUnexpectedEOF
		return 0
	}
	if d.buf == nil {
		d.buf = make([]byte, 16<<10)
	}
	n, err := d.src.Read(d.buf)
	for n == 0 && err == nil {
		n, err = d.src.Read(d.buf)
	}
	if n == 0 {
		d.err = unexpected(err)
		return 0
	}
	d.in, d.pos = d.buf[:n], 1
	return d.in[0]
}

func (d *rangeDecoder) normalise() {
	if d.rng < rangeTop {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.next())
	}
}

// bit decodes one bit with an adaptive probability.
func (d *rangeDecoder) bit(p *uint16) uint32 {
	bound := (d.rng >> probBits) * uint32(*p)
	var b uint32
	if d.code < bound {
		d.rng = bound
		*p += (1<<probBits - *p) >> probMoves
	} else {
		d.rng -= bound
		d.code -= bound
		*p -= *p >> probMoves
		b = 1
	}
	if d.rng < rangeTop {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.next())
	}
	return b
}

// direct decodes n bits of equal probability.
func (d *rangeDecoder) direct(n uint32) uint32 {
	var v uint32
	for ; n > 0; n-- {
		d.rng >>= 1
		d.code -= d.rng
		t := 0 - d.code>>31 // all ones if the subtraction went below zero
		d.code += d.rng & t
		d.normalise()
		v = v<<1 + t + 1
	}
	return v
}

// tree decodes n bits, most significant first. Most bits of a stream are decoded
// here, so the decoder's state is kept in registers meanwhile.
func (d *rangeDecoder) tree(probs []uint16, n uint32) uint32 {
	rng, code, in, pos := d.rng, d.code, d.in, d.pos
	m := uint32(1)
	for range n {
		p := &probs[m]
		v := uint32(*p)
		m <<= 1
		if bound := (rng >> probBits) * v; code < bound {
			rng = bound
			*p = uint16(v + (1<<probBits-v)>>probMoves)
		} else {
			rng -= bound
			code -= bound
			*p = uint16(v - v>>probMoves)
			m |= 1
		}
		if rng < rangeTop {
			rng <<= 8
			if pos < len(in) {
				code = code<<8 | uint32(in[pos])
				pos++
			} else {
				d.pos = pos
				code = code<<8 | uint32(d.refill())
				in, pos = d.in, d.pos
			}
		}
	}
	d.rng, d.code, d.pos = rng, code, pos
	return m - 1<<n
}

// reverse decodes n bits, least significant first.
func (d *rangeDecoder) reverse(probs []uint16, n uint32) uint32 {
	m, v := uint32(1), uint32(0)
	for i := range n {
		b := d.bit(&probs[m])
		m = m<<1 | b
		v |= b << i
	}
	return v
}
