package unpack

import (
	"encoding/binary"
	"io"

	"github.com/lazaret/lazaret/internal/threat"
)

// lzmaDecoder decodes raw LZMA data as the "LZMA specification" of the LZMA SDK
// describes it. Its memory is the window plus at most 6 MB of probabilities
// (with the extreme lc+lp of 12; LZMA2 allows 4, which is 24 KB).
type lzmaDecoder struct {
	rc  rangeDecoder
	win window

	lc, lp, pb uint32
	state      uint32
	rep        [4]uint32
	rem        int  // bytes of a match still to be copied
	eos        bool // end mark seen

	isMatch    [12 << 4]uint16
	isRep      [12]uint16
	isRepG0    [12]uint16
	isRepG1    [12]uint16
	isRepG2    [12]uint16
	isRep0Long [12 << 4]uint16
	posSlot    [4][64]uint16
	posSpecial [128]uint16
	align      [16]uint16
	matchLen   lengthDecoder
	repLen     lengthDecoder
	literal    []uint16
}

// lengthDecoder decodes match lengths less two.
type lengthDecoder struct {
	choice, choice2 uint16
	low, mid        [16][8]uint16
	high            [256]uint16
}

func (l *lengthDecoder) decode(d *rangeDecoder, posState uint32) int {
	if d.bit(&l.choice) == 0 {
		return int(d.tree(l.low[posState][:], 3))
	}
	if d.bit(&l.choice2) == 0 {
		return 8 + int(d.tree(l.mid[posState][:], 3))
	}
	return 16 + int(d.tree(l.high[:], 8))
}

func (l *lengthDecoder) reset() {
	l.choice, l.choice2 = probInit, probInit
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

func fill(p []uint16) {
	for i := range p {
		p[i] = probInit
	}
}

// properties sets lc, lp and pb from their byte.
func (d *lzmaDecoder) properties(b byte) error {
	if b >= 9*5*5 {
		return errLZMA
	}
	v := uint32(b)
	d.lc, v = v%9, v/9
	d.lp, d.pb = v%5, v/5
	if n := 0x300 << (d.lc + d.lp); cap(d.literal) < n {
		d.literal = make([]uint16, n)
	} else {
		d.literal = d.literal[:n]
	}
	return nil
}

// resetState makes all probabilities even.
func (d *lzmaDecoder) resetState() {
	d.state, d.rep, d.rem, d.eos = 0, [4]uint32{}, 0, false
	for _, p := range [][]uint16{
		d.isMatch[:], d.isRep[:], d.isRepG0[:], d.isRepG1[:], d.isRepG2[:], d.isRep0Long[:],
		d.posSpecial[:], d.align[:], d.literal, d.posSlot[0][:], d.posSlot[1][:], d.posSlot[2][:], d.posSlot[3][:],
	} {
		fill(p)
	}
	d.matchLen.reset()
	d.repLen.reset()
}

// decode writes n bytes into the window, which must have room for them; fewer
// only if the end mark was met.
func (d *lzmaDecoder) decode(n int) error {
	w, rc := &d.win, &d.rc
	limit := w.pos + n
	for w.pos < limit {
		if d.rem > 0 {
			k := min(d.rem, limit-w.pos)
			w.copy(d.rep[0], k)
			d.rem -= k
			continue
		}
		if rc.err != nil {
			return rc.err
		}
		posState := uint32(w.total) & (1<<d.pb - 1)
		if rc.bit(&d.isMatch[d.state<<4|posState]) == 0 {
			d.decodeLiteral()
			continue
		}
		if rc.bit(&d.isRep[d.state]) == 0 {
			if err := d.decodeMatch(posState); err != nil || d.eos {
				return err
			}
			continue
		}
		if err := d.decodeRep(posState); err != nil {
			return err
		}
	}
	return rc.err
}

func (d *lzmaDecoder) decodeLiteral() {
	w, rc := &d.win, &d.rc
	var prev uint32
	if w.total > 0 {
		prev = uint32(w.at(0))
	}
	at := (uint32(w.total)&(1<<d.lp-1))<<d.lc + prev>>(8-d.lc)
	probs := d.literal[0x300*at : 0x300*at+0x300]
	if d.state < 7 {
		w.put(byte(rc.tree(probs, 8)))
	} else { // after a match: the byte at its distance predicts this one
		match := uint32(w.at(d.rep[0]))
		m := uint32(1)
		for m < 0x100 {
			match <<= 1
			want := match & 0x100
			b := rc.bit(&probs[0x100+want+m])
			m = m<<1 | b
			if want>>8 != b {
				break
			}
		}
		for m < 0x100 {
			m = m<<1 | rc.bit(&probs[m])
		}
		w.put(byte(m))
	}
	switch {
	case d.state < 4:
		d.state = 0
	case d.state < 10:
		d.state -= 3
	default:
		d.state -= 6
	}
}

// decodeMatch decodes a match with a new distance, or the end mark.
func (d *lzmaDecoder) decodeMatch(posState uint32) error {
	rc := &d.rc
	d.rep[3], d.rep[2], d.rep[1] = d.rep[2], d.rep[1], d.rep[0]
	n := d.matchLen.decode(rc, posState)
	slot := rc.tree(d.posSlot[min(n, 3)][:], 6)
	dist := slot
	if slot >= 4 {
		bits := slot>>1 - 1
		dist = (2 | slot&1) << bits
		if slot < 14 {
			dist += rc.reverse(d.posSpecial[dist-slot:], bits)
		} else {
			dist += rc.direct(bits-4) << 4
			dist += rc.reverse(d.align[:], 4)
		}
	}
	d.rep[0] = dist
	if dist == 0xffffffff {
		d.eos = true
		return rc.err
	}
	return d.match(n, 7)
}

// decodeRep decodes a match at one of the last four distances.
func (d *lzmaDecoder) decodeRep(posState uint32) error {
	rc := &d.rc
	if rc.bit(&d.isRepG0[d.state]) == 0 {
		if rc.bit(&d.isRep0Long[d.state<<4|posState]) == 0 {
			return d.match(-1, 9) // one byte
		}
	} else {
		i := 1
		if rc.bit(&d.isRepG1[d.state]) != 0 {
			i = 2 + int(rc.bit(&d.isRepG2[d.state]))
		}
		dist := d.rep[i]
		copy(d.rep[1:i+1], d.rep[:i])
		d.rep[0] = dist
	}
	return d.match(d.repLen.decode(rc, posState), 8)
}

// match begins a match of n+2 bytes at rep[0]; next is the state after it if
// the last symbol was a literal.
func (d *lzmaDecoder) match(n int, next uint32) error {
	if !d.win.has(d.rep[0]) {
		return errLZMA
	}
	switch {
	case d.state < 7:
		d.state = next
	case next == 7:
		d.state = 10
	default:
		d.state = 11
	}
	d.rem = n + 2
	return nil
}

// lzmaStream reads raw LZMA data of a known size, or up to its end mark.
type lzmaStream struct {
	d    lzmaDecoder
	left uint64 // bytes to come; 1<<64-1 if unknown
	err  error
}

// newLZMA opens raw LZMA data with the properties byte and dictionary size of
// its container. size is the length of the content, -1 if it ends with a mark.
func newLZMA(r io.Reader, props byte, dict uint32, size int64) (*lzmaStream, error) {
	if dict > maxWindow && (size < 0 || size > maxWindow) {
		return nil, Fail(threat.ReasonTooLarge, "needs a window of more than %d bytes to be unpacked", maxWindow)
	}
	s := &lzmaStream{left: uint64(size)}
	s.d.rc.src = r
	if err := s.d.properties(props); err != nil {
		return nil, err
	}
	s.d.win.init(dict)
	s.d.resetState()
	return s, s.d.rc.start()
}

// newLZMAAlone opens a .lzma file: properties, dictionary size and content size
// before the data.
func newLZMAAlone(r io.Reader) (*lzmaStream, error) {
	var h [13]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, unexpected(err)
	}
	return newLZMA(r, h[0], binary.LittleEndian.Uint32(h[1:]), int64(binary.LittleEndian.Uint64(h[5:])))
}

// Read implements io.Reader.
func (s *lzmaStream) Read(p []byte) (int, error) {
	if s.err != nil || len(p) == 0 {
		return 0, s.err
	}
	if s.left == 0 {
		s.err = io.EOF
		return 0, io.EOF
	}
	w := &s.d.win
	n := min(w.room(), len(p))
	if uint64(n) > s.left {
		n = int(s.left)
	}
	start := w.pos
	err := s.d.decode(n)
	n = copy(p, w.buf[start:w.pos])
	switch {
	case err != nil:
		s.err = err
	case s.d.eos:
		s.err = io.EOF
	}
	if s.left != 1<<64-1 {
		if s.left -= uint64(n); s.left > 0 && s.err == io.EOF {
			s.err = io.ErrUnexpectedEOF
		}
	}
	return n, s.err
}
