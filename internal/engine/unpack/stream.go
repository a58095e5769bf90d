package unpack

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

// contentName names the only member of a compressed stream that has no name.
const contentName = "content"

// stream unpacks a sequence of containers that are read from start to end: an
// initramfs, for example, is several cpio archives, some of them compressed.
func (w *walk) stream(t filetype.Type, c *cursor, src *Source) error {
	for {
		if err := w.one(t, c); err != nil {
			return err
		}
		if !c.skipZeros() {
			return nil
		}
		if err := w.b.check(w.ctx); err != nil {
			return err
		}
		before := t
		t = filetype.Recognise(c.peek(filetype.HeadLen))
		switch {
		case t.Kind() == filetype.Stream:
		case t.Kind() == filetype.Archive && src.Stream == nil:
			return w.open(src.from(c.pos(), t))
		default:
			return Fail(threat.ReasonDamaged, "unknown data after the end of the %s content", before)
		}
	}
}

// one unpacks a single container and leaves the cursor behind it.
func (w *walk) one(t filetype.Type, c *cursor) error {
	switch t {
	case filetype.Tar:
		return w.tar(c)
	case filetype.CPIO:
		return w.cpio(c)
	case filetype.AR, filetype.DEB:
		return w.ar(c)
	case filetype.RPM:
		return w.rpm(c)
	}
	start := c.pos()
	r, name, done, err := w.decoder(t, c)
	if err != nil {
		return err
	}
	defer done()
	return w.compressed(name, r, func() int64 { return c.pos() - start })
}

// compressed hands a decoder's output to the visitor. The first bytes are
// decoded before, so that what is no compressed stream at all gives no member.
func (w *walk) compressed(name string, r io.Reader, packed func() int64) error {
	var first [512]byte
	n, err := prime(r, first[:])
	if err != nil && err != io.EOF && (n == 0 || w.tentative) {
		return err
	}
	if err != nil {
		r = failing{err}
	}
	all := &ended{r: io.MultiReader(bytes.NewReader(first[:n]), r)}
	err = w.member(name, -1, nil, all, packed)
	if errors.Is(err, errMember) || (err == nil && !all.yes) {
		return errStop // where the stream ends is not known
	}
	return err
}

// ended remembers whether its reader was read to the end.
type ended struct {
	r   io.Reader
	yes bool
}

func (e *ended) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.yes = e.yes || err == io.EOF
	return n, err
}

// prime fills p; unlike io.ReadFull it returns the reader's own error.
func prime(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// failing is a reader that only fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// decoder opens the decoder for a compressed stream. done gives it back for
// reuse.
func (w *walk) decoder(t filetype.Type, c *cursor) (r io.Reader, name string, done func(), err error) {
	done = func() {}
	switch t {
	case filetype.Gzip:
		return w.gzip(c)
	case filetype.Bzip2:
		return bzip2.NewReader(c.input()), contentName, done, nil
	case filetype.XZ:
		return &xzReader{c: c, w: w}, contentName, done, nil
	case filetype.LZMA:
		d, err := newLZMAAlone(c.input())
		return d, contentName, done, err
	case filetype.LZ4:
		return &lz4Frames{z: lz4.NewReader(c.input()), c: c}, contentName, done, nil
	case filetype.Zstd:
		z, done, err := w.zstd(c.input(), c.peek(zstd.HeaderMaxSize))
		return z, contentName, done, err
	}
	return nil, "", done, Fail(threat.ReasonUnknownMethod, "%s content is not unpacked", t)
}

// gzip opens a gzip stream of one or more members (RFC 1952 section 2.2).
func (w *walk) gzip(c *cursor) (io.Reader, string, func(), error) {
	z := new(gzip.Reader)
	if n := len(w.u.gzips); n > 0 {
		z, w.u.gzips = w.u.gzips[n-1], w.u.gzips[:n-1]
	}
	done := func() {
		if len(w.u.gzips) < maxKept {
			w.u.gzips = append(w.u.gzips, z)
		}
	}
	if err := z.Reset(c.input()); err != nil {
		return nil, "", done, unexpected(err)
	}
	z.Multistream(false)
	name := z.Name
	if name == "" {
		name = contentName
	}
	return &gzipMembers{z: z, c: c, w: w}, name, done, nil
}

// gzipMembers joins the members of a gzip stream and stops before what is not
// one.
type gzipMembers struct {
	z *gzip.Reader
	c *cursor
	w *walk
}

func (g *gzipMembers) Read(p []byte) (int, error) {
	for {
		n, err := g.z.Read(p)
		if err != io.EOF {
			return n, err
		}
		if !bytes.HasPrefix(g.c.peek(3), []byte("\x1f\x8b\x08")) {
			return n, io.EOF
		}
		if err := g.w.b.check(g.w.ctx); err != nil {
			return n, err
		}
		if err := g.z.Reset(g.c.input()); err != nil {
			return n, unexpected(err)
		}
		g.z.Multistream(false)
		if n > 0 {
			return n, nil
		}
	}
}

// lz4Frames joins concatenated LZ4 frames.
type lz4Frames struct {
	z *lz4.Reader
	c *cursor
}

func (l *lz4Frames) Read(p []byte) (int, error) {
	for {
		n, err := l.z.Read(p)
		if n > 0 || err != io.EOF {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		if filetype.Recognise(l.c.peek(filetype.HeadLen)) != filetype.LZ4 {
			return 0, io.EOF
		}
		l.z.Reset(l.c.input())
	}
}

// smallWindow is the largest window of zstd decoders that are kept for reuse, in
// bytes: a decoder keeps the memory of the largest window it ever had.
const smallWindow = 8 << 20

// zstd opens a zstd decoder that works without goroutines of its own. head are
// the first bytes of what in reads.
func (w *walk) zstd(in io.Reader, head []byte) (io.Reader, func(), error) {
	var h zstd.Header
	if err := h.Decode(head); err == nil && h.WindowSize > smallWindow {
		z, err := newZstd(in, maxWindow)
		if err != nil {
			return nil, func() {}, err
		}
		return zstdReader{z}, z.Close, nil
	}
	var z *zstd.Decoder
	var err error
	if n := len(w.u.zstds); n > 0 {
		z, w.u.zstds = w.u.zstds[n-1], w.u.zstds[:n-1]
		err = z.Reset(in)
	} else {
		z, err = newZstd(in, smallWindow)
	}
	if err != nil {
		return nil, func() {}, err
	}
	done := func() {
		if z.Reset(nil) == nil && len(w.u.zstds) < maxKept {
			w.u.zstds = append(w.u.zstds, z)
		} else {
			z.Close()
		}
	}
	return zstdReader{z}, done, nil
}

func newZstd(in io.Reader, window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
}

type zstdReader struct{ z *zstd.Decoder }

func (r zstdReader) Read(p []byte) (int, error) {
	n, err := r.z.Read(p)
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		err = Fail(threat.ReasonTooLarge, "needs a window that is too large to be unpacked")
	case errors.Is(err, zstd.ErrUnknownDictionary):
		err = Fail(threat.ReasonUnknownMethod, "compressed with a dictionary that is not known")
	}
	return n, err
}
