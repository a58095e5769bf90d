package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

// maxSevenHeader bounds the header of a 7z archive in bytes, packed and
// unpacked: about 100 bytes per member are usual.
const maxSevenHeader = 16 << 20

// seven unpacks a 7z archive (7zFormat.txt of the LZMA SDK). Members of a
// folder ("solid block") are one stream, so they are decoded once and in order.
func (w *walk) seven(src *Source) error {
	s := &sevenWalk{walk: w, src: src, r: src.readerAt(), size: src.size()}
	h, err := s.header()
	if err != nil {
		return err
	}
	w.proof = true
	if err := s.members(h); err != nil {
		return err
	}
	// Other content may be appended to an archive as to any other file.
	rest := src.from(s.end, filetype.Data)
	c := w.cursor(rest)
	defer w.release(c)
	if !c.skipZeros() {
		return nil
	}
	t := filetype.Recognise(c.peek(filetype.HeadLen))
	if t.Kind() == filetype.Plain {
		return nil
	}
	return w.open(rest.from(c.pos(), t))
}

type sevenWalk struct {
	*walk
	src  *Source
	r    io.ReaderAt
	size int64
	end  int64 // of the archive
}

// header reads the signature header and the header it points to, unpacking it
// as often as it is packed.
func (s *sevenWalk) header() (*sevenHeader, error) {
	var b [32]byte
	if n, err := s.r.ReadAt(b[:], 0); n < len(b) {
		return nil, unexpected(err)
	}
	if crc32.ChecksumIEEE(b[12:]) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, errSeven
	}
	off, n := binary.LittleEndian.Uint64(b[12:]), binary.LittleEndian.Uint64(b[20:])
	if n == 0 {
		s.end = 32
		return new(sevenHeader), nil
	}
	room := uint64(s.size - 32)
	if off > room || n > room-off {
		return nil, io.ErrUnexpectedEOF
	}
	if n > maxSevenHeader {
		return nil, Fail(threat.ReasonTooLarge, "header is larger than %d bytes", maxSevenHeader)
	}
	s.end = 32 + int64(off+n)
	raw := make([]byte, n)
	if k, err := s.r.ReadAt(raw, 32+int64(off)); k < len(raw) {
		return nil, unexpected(err)
	}
	if crc32.ChecksumIEEE(raw) != binary.LittleEndian.Uint32(b[28:]) {
		return nil, errSeven
	}
	for range 4 {
		p := sevenParser{fields{b: raw}}
		switch id := p.byte(); id {
		case sevenHeaderID:
			return p.header()
		case sevenEncodedID:
			var err error
			if raw, err = s.encoded(&p); err != nil {
				return nil, err
			}
		default:
			return nil, errSeven
		}
	}
	return nil, errSeven
}

// encoded unpacks a packed header.
func (s *sevenWalk) encoded(p *sevenParser) ([]byte, error) {
	st, err := p.streams()
	if err != nil {
		return nil, err
	}
	if len(st.folders) != 1 {
		return nil, errSeven
	}
	f := &st.folders[0]
	if f.size() > maxSevenHeader {
		return nil, Fail(threat.ReasonTooLarge, "header is larger than %d bytes", maxSevenHeader)
	}
	r, done, err := s.folder(st, f)
	if err != nil {
		var fail *Failure
		if errors.As(err, &fail) && fail.Code == threat.ReasonEncrypted {
			err = Fail(threat.ReasonEncrypted, "names of the members are encrypted")
		}
		return nil, err
	}
	defer done()
	var out bytes.Buffer
	if _, err := io.Copy(&out, &exact{r: &meter{w: s.walk, r: r}, n: int64(f.size())}); err != nil {
		return nil, err
	}
	if f.hasCRC && crc32.ChecksumIEEE(out.Bytes()) != f.crc {
		return nil, errSeven
	}
	return out.Bytes(), nil
}

// members unpacks all folders.
func (s *sevenWalk) members(h *sevenHeader) error {
	files := h.files()
	for i := range h.streams.folders {
		f := &h.streams.folders[i]
		if len(f.sub) == 0 {
			continue
		}
		if err := s.unpackFolder(&h.streams, f, files); err != nil {
			return err
		}
	}
	return nil
}

// unpackFolder decodes one folder and cuts it into members.
func (s *sevenWalk) unpackFolder(st *sevenStreams, f *sevenFolder, files *sevenFiles) error {
	r, done, err := s.folder(st, f)
	if err != nil {
		var fail *Failure
		if !errors.As(err, &fail) {
			fail = Fail(threat.ReasonDamaged, "%s", describe(err))
		}
		for range f.sub {
			s.refuse(files.next(), fail)
		}
		return nil
	}
	defer done()
	packed := int64(f.packedSize(st))
	for i, sub := range f.sub {
		name := files.next()
		in := &checked{r: &exact{r: r, n: int64(sub.size)}, want: sub.crc, size: sub.size, unchecked: !sub.hasCRC}
		err := s.member(name, int64(sub.size), nil, in, func() int64 { return packed })
		if errors.Is(err, errMember) && in.n == sub.size {
			err = nil // only the checksum is wrong: what follows is where it should be
		}
		if errors.Is(err, errMember) {
			for range f.sub[i+1:] {
				s.refuse(files.next(), Fail(threat.ReasonDamaged, "follows damaged data"))
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.drain(in, sub.size); err != nil {
			return err
		}
	}
	return nil
}

// drain reads what the visitor left of a member: the next one begins behind it.
func (s *sevenWalk) drain(in *checked, size uint64) error {
	if in.n >= size {
		return nil
	}
	_, err := io.Copy(io.Discard, &meter{w: s.walk, r: in})
	return err
}
