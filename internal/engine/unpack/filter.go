package unpack

import (
	"encoding/binary"
	"io"

	"github.com/lazaret/lazaret/internal/threat"
)

// convert rewrites as much of b as it can decide on and returns how many bytes
// are final; pos is the offset of b[0] in the unfiltered data.
type convert func(b []byte, pos uint32) int

// filterReader undoes a filter over a stream: branch conversion ("BCJ", which
// makes relative jumps absolute before compression) or delta.
type filterReader struct {
	r     io.Reader
	f     convert
	buf   []byte
	ready int // bytes at the start of buf that are converted
	pos   uint32
	err   error
}

// newFilter opens an xz filter by its id; 7z uses the same numbers.
func newFilter(id uint64, props []byte, r io.Reader) (io.Reader, error) {
	if id == 3 {
		if len(props) != 1 {
			return nil, errXZ
		}
		return &deltaReader{r: r, dist: int(props[0]) + 1}, nil
	}
	f := &filterReader{r: r}
	switch id {
	case 4:
		f.f = new(x86).convert
	case 5:
		f.f = powerPC
	case 7:
		f.f = arm
	case 8:
		f.f = armThumb
	case 9:
		f.f = sparc
	case 10:
		f.f = arm64
	default:
		return nil, Fail(threat.ReasonUnknownMethod, "filter %#x is not known", id)
	}
	switch len(props) {
	case 0:
	case 4:
		f.pos = binary.LittleEndian.Uint32(props)
	default:
		return nil, errXZ
	}
	return f, nil
}

// Read implements io.Reader.
func (f *filterReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for f.ready == 0 && f.err == nil {
		const size = 16 << 10
		old := len(f.buf)
		if cap(f.buf) < size {
			f.buf = make([]byte, old, size)
		}
		n, err := f.r.Read(f.buf[old:size])
		f.buf = f.buf[:old+n]
		f.err = err
		f.ready = f.f(f.buf, f.pos)
		f.pos += uint32(f.ready)
		if err != nil { // what is left is too short to be an instruction
			f.ready = len(f.buf)
		}
	}
	n := copy(p, f.buf[:f.ready])
	f.buf = f.buf[:copy(f.buf, f.buf[n:])]
	f.ready -= n
	if n == 0 {
		return 0, f.err
	}
	return n, nil
}

// deltaReader adds the byte dist back to each byte.
type deltaReader struct {
	r    io.Reader
	dist int
	hist [256]byte
	at   int
}

// Read implements io.Reader.
func (d *deltaReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	for i := range p[:n] {
		p[i] += d.hist[d.at]
		d.hist[d.at] = p[i]
		if d.at++; d.at == d.dist {
			d.at = 0
		}
	}
	return n, err
}
