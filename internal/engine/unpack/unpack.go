package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

// maxWindow bounds the history of one LZMA or zstd decoder in bytes. zstd
// --long and xz -9 stay below it.
const maxWindow = 128 << 20

// maxKept is how many decoders of a kind are kept for reuse.
const maxKept = 4

// Unpacker opens containers. It keeps decoders for reuse between files and is
// used by one goroutine at a time; walks may be nested inside visitors.
type Unpacker struct {
	gzips    []*gzip.Reader
	deflates []io.ReadCloser
	zstds    []*zstd.Decoder
	buffers  []*bufio.Reader
}

// New returns an Unpacker.
func New() *Unpacker { return new(Unpacker) }

// Close releases the decoders; the Unpacker must not be used afterwards.
func (u *Unpacker) Close() {
	for _, d := range u.zstds {
		d.Close()
	}
	*u = Unpacker{}
}

// Walk calls visit for each member of the container in src, in the container's
// order. Content that is no container by itself is searched for containers
// appended to it (self-extractors, zip files behind programs).
//
// The visitor returns nil, a *Failure when the member could not be inspected
// completely (the walk goes on), or another error to end the walk.
//
// The reasons say what of the container was not unpacked; none means all of it
// was. The error is the visitor's or that of ctx, nothing else: hostile or
// damaged content never causes one, nor does the budget's time.
func (u *Unpacker) Walk(ctx context.Context, src *Source, b *Budget, visit func(*Member) error) ([]threat.Reason, error) {
	w := &walk{u: u, ctx: ctx, b: b, visit: visit}
	w.finish(w.protect(func() error { return w.open(src) }))
	return w.notes.reasons(), w.abort
}

// errStop ends a walk whose reason is already noted.
var errStop = errors.New("walk stopped")

// walk is one container being opened.
type walk struct {
	u     *Unpacker
	ctx   context.Context
	b     *Budget
	visit func(*Member) error
	notes notes
	abort error // the visitor's error
	proof bool  // something of the container proved to be valid
	// tentative walks are guesses: what fails before there is a proof was no container.
	tentative bool
}

// protect turns panics of decoders into damage of this container.
func (w *walk) protect(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decoder gave up: %.200v", r)
		}
	}()
	return f()
}

// finish notes what ended the walk.
func (w *walk) finish(err error) {
	var f *Failure
	switch {
	case err == nil, errors.Is(err, errStop):
	case errors.As(err, &f):
		w.notes.add("", f)
	case w.ctx.Err() != nil && errors.Is(err, w.ctx.Err()):
		w.abort = err
	default:
		w.notes.add("", Fail(threat.ReasonDamaged, "%s", describe(err)))
	}
	if w.b.stop != nil && w.abort == nil {
		w.notes.add("", w.b.stop)
	}
}

// open dispatches on the type.
func (w *walk) open(src *Source) error {
	switch src.Type.Kind() {
	case filetype.Archive:
		if src.Stream != nil {
			return Fail(threat.ReasonTooLarge, "%s archive is too large to be unpacked here", src.Type)
		}
		if src.Type == filetype.Seven {
			return w.seven(src)
		}
		return w.zip(src)
	case filetype.Stream:
		c := w.cursor(src)
		defer w.release(c)
		return w.stream(src.Type, c, src)
	case filetype.Unsupported:
		return Fail(threat.ReasonUnknownMethod, "%s content is not unpacked", src.Type)
	}
	if src.Stream != nil {
		return nil
	}
	return w.appended(src)
}

// member counts a member and hands it to the visitor: in place if data is not
// nil, else streamed from r, of which packed tells how many compressed bytes it
// took so far (nil if it is not compressed).
func (w *walk) member(name string, size int64, data []byte, r io.Reader, packed func() int64) error {
	if err := w.b.addMember(w.ctx); err != nil {
		return w.ended(err)
	}
	w.proof = true
	m := Member{Name: Name(name), Size: size, Data: data}
	var in *meter
	if data == nil {
		in = &meter{w: w, r: r, packed: packed}
		m.Reader = in
	}
	err := w.visit(&m)
	if err == nil && in != nil && in.err != nil && in.err != io.EOF {
		err = in.err
	}
	if err != nil {
		var f *Failure
		if !errors.As(err, &f) {
			return w.ended(err)
		}
		w.notes.add(m.Name, f)
	}
	if w.b.stop != nil {
		return w.b.stop
	}
	if in != nil && in.err != nil && in.err != io.EOF {
		return errMember
	}
	return nil
}

// errMember says that the member's content failed and is noted: archives go on
// with the next member, streams end.
var errMember = errors.New("member failed")

// ended returns the error that ends the walk: a failure as it is, anything else
// as the reason to abort.
func (w *walk) ended(err error) error {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	w.abort = err
	return errStop
}

// refuse notes a member that cannot be unpacked although its header is valid.
func (w *walk) refuse(name string, f *Failure) {
	w.proof = true
	w.notes.add(Name(name), f)
}

// describe is an error's text, bounded: decoders quote hostile bytes.
func describe(err error) string {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "content ends too early"
	}
	return Name(err.Error())
}
