package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
)

// bufferSize is the read-ahead on content that is not in memory, in bytes.
const bufferSize = 32 << 10

// cursor reads a container from start to end and always knows its position. It
// gives decoders the concrete reader types they have fast paths for.
type cursor struct {
	data []byte // in memory
	mem  *bytes.Reader
	buf  *bufio.Reader // else
	read int64         // bytes that buf took from the source
	src  io.Reader
	w    *walk
	head []byte // scratch for next
}

// cursor opens a source for sequential reading; release it afterwards.
func (w *walk) cursor(src *Source) *cursor {
	c := &cursor{w: w}
	switch {
	case src.Stream != nil:
		c.src = src.Stream
	case src.At != nil:
		c.src = io.NewSectionReader(src.At, 0, src.Size)
	default:
		c.data, c.mem = src.Data, bytes.NewReader(src.Data)
		return c
	}
	if n := len(w.u.buffers); n > 0 {
		c.buf, w.u.buffers = w.u.buffers[n-1], w.u.buffers[:n-1]
		c.buf.Reset(counted{c})
	} else {
		c.buf = bufio.NewReaderSize(counted{c}, bufferSize)
	}
	return c
}

func (w *walk) release(c *cursor) {
	if c.buf != nil && len(w.u.buffers) < 2*maxKept {
		c.buf.Reset(nil)
		w.u.buffers = append(w.u.buffers, c.buf)
	}
}

// counted feeds buf, counting, and ends when the budget's time does: decoders
// can take much input before they give any output.
type counted struct{ c *cursor }

func (r counted) Read(p []byte) (int, error) {
	if err := r.c.w.b.check(r.c.w.ctx); err != nil {
		return 0, err
	}
	n, err := r.c.src.Read(p)
	r.c.read += int64(n)
	return n, err
}

// input is the reader for decoders; it also implements io.ByteReader, so they
// take no more than they need.
func (c *cursor) input() flate.Reader {
	if c.mem != nil {
		return c.mem
	}
	return c.buf
}

// Read implements io.Reader.
func (c *cursor) Read(p []byte) (int, error) { return c.input().Read(p) }

// pos is the offset of the next byte.
func (c *cursor) pos() int64 {
	if c.mem != nil {
		return c.mem.Size() - int64(c.mem.Len())
	}
	return c.read - int64(c.buf.Buffered())
}

// peek returns up to n bytes (at most bufferSize) without consuming them.
func (c *cursor) peek(n int) []byte {
	if c.mem != nil {
		rest := c.data[c.pos():]
		return rest[:min(n, len(rest))]
	}
	b, _ := c.buf.Peek(n)
	return b
}

// next returns the next n bytes, valid until the next call. n must be bounded
// by the caller.
func (c *cursor) next(n int) ([]byte, error) {
	if cap(c.head) < n {
		c.head = make([]byte, n, max(n, 512))
	}
	b := c.head[:n]
	if _, err := io.ReadFull(c.input(), b); err != nil {
		return nil, err
	}
	return b, nil
}

// skip passes over n bytes.
func (c *cursor) skip(n int64) error {
	if n < 0 {
		return fmt.Errorf("skipping %d bytes", n)
	}
	if c.mem != nil {
		if n > int64(c.mem.Len()) {
			_, _ = c.mem.Seek(0, io.SeekEnd)
			return io.ErrUnexpectedEOF
		}
		_, err := c.mem.Seek(n, io.SeekCurrent)
		return err
	}
	for n > 0 {
		k, err := c.buf.Discard(int(min(n, 1<<30)))
		n -= int64(k)
		if err != nil {
			return unexpected(err)
		}
	}
	return nil
}

// skipZeros passes over zero bytes and reports whether anything follows.
func (c *cursor) skipZeros() bool {
	for {
		b := c.peek(4096)
		if len(b) == 0 {
			return false
		}
		rest := bytes.TrimLeft(b, "\x00")
		if err := c.skip(int64(len(b) - len(rest))); err != nil {
			return false
		}
		if len(rest) > 0 {
			return true
		}
	}
}

// content returns the next n bytes without consuming them if they are in memory.
func (c *cursor) content(n int64) []byte {
	if c.mem == nil || n < 0 || n > int64(c.mem.Len()) {
		return nil
	}
	p := c.pos()
	return c.data[p : p+n : p+n]
}

// stored hands the next n bytes to the visitor as a member and passes over them.
func (c *cursor) stored(w *walk, name string, n int64) error {
	end := c.pos() + n
	if data := c.content(n); data != nil {
		if err := w.member(name, n, data, nil, nil); err != nil {
			return err
		}
	} else {
		r := &exact{r: c.input(), n: n}
		if err := w.member(name, n, nil, r, nil); err != nil && !errors.Is(err, errMember) {
			return err
		}
	}
	return c.skip(end - c.pos())
}

// exact reads n bytes; ending earlier is an error.
type exact struct {
	r io.Reader
	n int64
}

func (e *exact) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if err == io.EOF && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// unexpected makes io.EOF an io.ErrUnexpectedEOF: where more must follow, the
// end is damage.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
