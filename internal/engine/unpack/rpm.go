package unpack

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

var errRPM = errors.New("invalid rpm header")

// rpm unpacks the payload of an RPM package (rpm.org, "RPM V4 Package format"):
// a lead of 96 bytes, the signature header padded to eight bytes, the header,
// and a cpio archive compressed with what the payload itself shows.
func (w *walk) rpm(c *cursor) error {
	if err := c.skip(96); err != nil {
		return err
	}
	size, err := rpmHeader(c)
	if err != nil {
		return err
	}
	if err := c.skip(padding(size, 8)); err != nil {
		return err
	}
	if _, err := rpmHeader(c); err != nil {
		return err
	}
	w.proof = true
	t := filetype.Recognise(c.peek(filetype.HeadLen))
	switch t {
	case filetype.Empty:
		return nil // a package without files
	case filetype.CPIO, filetype.Tar:
		return w.one(t, c)
	case filetype.Gzip, filetype.Bzip2, filetype.XZ, filetype.LZMA, filetype.Zstd, filetype.LZ4:
	default:
		return Fail(threat.ReasonUnknownMethod, "payload is compressed in an unknown way")
	}
	start := c.pos()
	r, _, done, err := w.decoder(t, c)
	if err != nil {
		return err
	}
	defer done()
	payload := &meter{w: w, r: r, free: true, packed: func() int64 { return c.pos() - start }}
	inner := w.cursor(&Source{Stream: payload})
	defer w.release(inner)
	t = filetype.Recognise(inner.peek(filetype.HeadLen))
	if t != filetype.CPIO && t != filetype.Tar {
		if payload.err != nil && payload.err != io.EOF {
			return payload.err
		}
		if string(inner.peek(6)) == "07070X" {
			return Fail(threat.ReasonUnknownMethod, "stripped cpio payloads are not unpacked")
		}
		return Fail(threat.ReasonDamaged, "payload is no cpio archive")
	}
	err = w.one(t, inner)
	if err == nil {
		// The rest is padding; reading it verifies the checksum.
		if _, err = io.Copy(io.Discard, inner.input()); err == nil {
			return nil
		}
	}
	return err
}

// rpmHeader passes over a header structure and returns its length in bytes:
// magic, number of index entries, bytes of data, then both.
func rpmHeader(c *cursor) (int64, error) {
	h, err := c.next(16)
	if err != nil {
		return 0, unexpected(err)
	}
	if binary.BigEndian.Uint32(h)>>8 != 0x8eade8 {
		return 0, errRPM
	}
	size := 16*int64(binary.BigEndian.Uint32(h[8:])) + int64(binary.BigEndian.Uint32(h[12:]))
	return size, c.skip(size)
}
