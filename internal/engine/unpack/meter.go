package unpack

import (
	"errors"
	"fmt"
	"io"

	"github.com/lazaret/lazaret/internal/threat"
)

// readChunk bounds one read of unpacked data in bytes, so that limits are
// checked often enough whatever the visitor asks for.
const readChunk = 128 << 10

// meter reads a member's content and enforces the limits on it.
type meter struct {
	w      *walk
	r      io.Reader
	packed func() int64
	free   bool  // the bytes are passed on and counted there
	n      int64 // bytes read
	err    error // sticky
}

// Read implements io.Reader; errors other than io.EOF are *Failure or that of
// the context.
func (m *meter) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if m.err = m.w.b.check(m.w.ctx); m.err != nil {
		return 0, m.err
	}
	if len(p) > readChunk {
		p = p[:readChunk]
	}
	n, err := m.read(p)
	m.n += int64(n)
	spent := int64(n)
	if m.free {
		spent = 0
	}
	if limit := m.w.b.spend(spent); limit != nil {
		err = limit
	} else if l := &m.w.b.limits; m.packed != nil && m.n > l.RatioAfter && m.n/l.Ratio > max(m.packed(), 1) {
		err = Fail(threat.ReasonLimitRatio, "unpacks to more than %d times its size", l.Ratio)
	}
	if err != nil {
		m.err = m.classify(err)
	}
	return n, m.err
}

// read survives decoders that panic on hostile input.
func (m *meter) read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, Fail(threat.ReasonDamaged, "decoder gave up: %s", Name(fmt.Sprint(r)))
		}
	}()
	n, err = m.r.Read(p)
	if n < 0 || n > len(p) {
		return 0, Fail(threat.ReasonDamaged, "decoder returned an impossible length")
	}
	return n, err
}

// classify turns a decoder's error into a failure.
func (m *meter) classify(err error) error {
	var f *Failure
	switch {
	case err == io.EOF:
		return io.EOF
	case errors.As(err, &f):
		return f
	case m.w.ctx.Err() != nil && errors.Is(err, m.w.ctx.Err()):
		return err
	}
	return Fail(threat.ReasonDamaged, "%s", describe(err))
}
