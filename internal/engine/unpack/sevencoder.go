package unpack

import (
	"bufio"
	"compress/bzip2"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/lazaret/lazaret/internal/threat"
)

// Coder ids of 7z's Methods.txt. Filters up to 0x0a have xz's numbers.
const (
	sevenCopy    = 0x00
	sevenLZMA2   = 0x21
	sevenLZMA    = 0x030101
	sevenBCJ     = 0x03030103
	sevenBCJ2    = 0x0303011b
	sevenPPC     = 0x03030205
	sevenIA64    = 0x03030401
	sevenARM     = 0x03030501
	sevenARMT    = 0x03030701
	sevenSPARC   = 0x03030805
	sevenDeflate = 0x040108
	sevenBzip2   = 0x040202
	sevenZstd    = 0x04f71101
	sevenLZ4     = 0x04f71104
	sevenAES     = 0x06f10701
)

// sevenFilters maps the ids of branch filters to xz's.
func sevenFilter(id uint64) uint64 {
	switch id {
	case sevenBCJ:
		return 4
	case sevenPPC:
		return 5
	case sevenIA64:
		return 6
	case sevenARM:
		return 7
	case sevenARMT:
		return 8
	case sevenSPARC:
		return 9
	}
	return id
}

// folderDecoder connects the coders of a folder.
type folderDecoder struct {
	s       *sevenWalk
	st      *sevenStreams
	f       *sevenFolder
	used    [maxSevenCoders]bool
	release []func()
}

// folder opens the decoder of a folder's content; done releases its parts.
func (s *sevenWalk) folder(st *sevenStreams, f *sevenFolder) (io.Reader, func(), error) {
	for _, c := range f.coders { // say "encrypted" even if another coder is unknown
		if c.id == sevenAES {
			return nil, nil, Fail(threat.ReasonEncrypted, "is encrypted")
		}
	}
	d := &folderDecoder{s: s, st: st, f: f}
	done := func() {
		for _, r := range d.release {
			r()
		}
	}
	main := f.mainOut()
	if main < 0 {
		return nil, nil, errSeven
	}
	r, err := d.output(uint64(main))
	if err != nil {
		done()
		return nil, nil, err
	}
	return r, done, nil
}

// output opens out-stream i: the coder it belongs to, over its inputs.
func (d *folderDecoder) output(i uint64) (io.Reader, error) {
	var in, out uint64
	for n, c := range d.f.coders {
		if i >= out+c.out {
			in, out = in+c.in, out+c.out
			continue
		}
		if d.used[n] || c.out != 1 {
			return nil, errSeven
		}
		d.used[n] = true
		ins := make([]io.Reader, c.in)
		for j := range ins {
			r, err := d.input(in + uint64(j))
			if err != nil {
				return nil, err
			}
			ins[j] = r
		}
		return d.coder(c, ins, int64(min(d.f.sizes[i], 1<<62)))
	}
	return nil, errSeven
}

// input opens in-stream i: another coder's output or a packed stream.
func (d *folderDecoder) input(i uint64) (io.Reader, error) {
	for _, b := range d.f.bonds {
		if b.in == i {
			return d.output(b.out)
		}
	}
	for n, p := range d.f.inputs {
		if p != i {
			continue
		}
		off, size := d.st.packPos, d.st.packed[d.f.first+n]
		for _, before := range d.st.packed[:d.f.first+n] {
			off += before
		}
		room := uint64(d.s.size - 32)
		if off > room || size > room-off {
			return nil, io.ErrUnexpectedEOF
		}
		src := &Source{At: io.NewSectionReader(d.s.r, 32+int64(off), int64(size)), Size: int64(size)}
		if data := d.s.src.slice(32+int64(off), int64(size)); data != nil {
			src = &Source{Data: data}
		}
		c := d.s.cursor(src)
		d.release = append(d.release, func() { d.s.walk.release(c) })
		return c.input(), nil
	}
	return nil, errSeven
}

// coder opens one coder whose output has the given size.
func (d *folderDecoder) coder(c sevenCoder, ins []io.Reader, size int64) (io.Reader, error) {
	if c.id == sevenBCJ2 {
		if len(ins) != 4 {
			return nil, errSeven
		}
		return newBCJ2(ins)
	}
	if len(ins) != 1 {
		return nil, errSeven
	}
	in := ins[0]
	switch c.id {
	case sevenCopy:
		return in, nil
	case sevenLZMA:
		if len(c.props) != 5 {
			return nil, errSeven
		}
		return newLZMA(in, c.props[0], binary.LittleEndian.Uint32(c.props[1:]), size)
	case sevenLZMA2:
		if len(c.props) != 1 {
			return nil, errSeven
		}
		z := new(lzma2Reader)
		return z, z.reset(in, c.props[0], size)
	case sevenDeflate:
		r, done := d.s.deflate(bufio.NewReader(in))
		d.release = append(d.release, done)
		return r, nil
	case sevenBzip2:
		return bzip2.NewReader(in), nil
	case sevenLZ4:
		return lz4.NewReader(in), nil
	case sevenZstd:
		br := bufio.NewReader(in)
		head, _ := br.Peek(zstd.HeaderMaxSize) // a short head is the decoder's to judge
		r, done, err := d.s.zstd(br, head)
		d.release = append(d.release, done)
		return r, err
	}
	if id := sevenFilter(c.id); id <= 10 {
		return newFilter(id, c.props, in)
	}
	return nil, Fail(threat.ReasonUnknownMethod, "compression method %#x is not known", c.id)
}
