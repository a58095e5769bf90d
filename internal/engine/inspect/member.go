package inspect

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/engine/unpack"
	"github.com/lazaret/lazaret/internal/threat"
)

// open unpacks an object that is a container, or has one appended.
func (f *file) open(at, depth int, typ filetype.Type, c *content) error {
	src := &unpack.Source{Type: typ, Data: c.data}
	switch {
	case c.rest != nil:
		if typ.Kind() != filetype.Stream {
			return nil // the object is partial already
		}
		src = &unpack.Source{Type: typ, Stream: io.MultiReader(bytes.NewReader(c.data), c.rest)}
	case c.at != nil:
		src = &unpack.Source{Type: typ, At: c.at, Size: c.size}
	}
	prefix := f.objects[at].Member
	if prefix != "" {
		prefix += "!/"
	}
	reasons, err := f.p.unpack.Walk(f.ctx, src, f.budget, func(m *unpack.Member) error {
		if depth >= f.limits.Depth {
			return errTooDeep
		}
		return f.member(prefix+m.Name, depth+1, m)
	})
	for _, r := range reasons {
		f.note(at, &unpack.Failure{Reason: r})
	}
	switch {
	case err == nil:
	case errors.Is(err, errTooDeep):
		f.note(at, unpack.Fail(threat.ReasonLimitDepth, "nested deeper than %d containers", f.limits.Depth))
	case f.ended() != nil:
		return f.ended()
	case errors.Is(err, context.DeadlineExceeded):
		f.note(at, unpack.Fail(threat.ReasonLimitTime, "inspection took longer than %s", f.limits.Time))
	default:
		return err
	}
	return nil
}

// errTooDeep ends a walk at the first member: containers at the last level are
// not unpacked.
var errTooDeep = errors.New("nested too deeply")

// member inspects a member of a container.
func (f *file) member(name string, depth int, m *unpack.Member) error {
	if f.known == nil {
		f.known = make(map[threat.Hash]answer)
		f.remember()
	}
	at := f.reserve(name)
	if m.Data != nil {
		c := &content{data: m.Data, size: int64(len(m.Data)), complete: true}
		if int64(len(m.Data)) > f.limits.MemberSize {
			return f.inspectLimited(at, depth, c)
		}
		return f.inspectContent(at, depth, c)
	}
	buf, err := f.p.read(m.Reader, m.Size, f.limits.MemberSize)
	defer func() { f.p.keep(buf) }()
	c := &content{data: buf, size: int64(len(buf))}
	var fail *unpack.Failure
	switch {
	case err == nil:
		c.complete = true
	case err == errMore:
		c.rest = m.Reader
		c.size = max(m.Size, c.size)
		fail = unpack.Fail(threat.ReasonTooLarge, "larger than %d bytes", f.limits.MemberSize)
		f.note(at, fail)
	case errors.As(err, &fail):
		f.note(at, fail)
	default:
		return err
	}
	if err := f.inspectContent(at, depth, c); err != nil {
		return err
	}
	if fail != nil {
		return fail
	}
	return nil
}

// inspectLimited inspects a stored member that is larger than members may be:
// it is in memory anyway, so only what engines see is cut.
func (f *file) inspectLimited(at, depth int, c *content) error {
	fail := unpack.Fail(threat.ReasonTooLarge, "larger than %d bytes", f.limits.MemberSize)
	f.note(at, fail)
	if err := f.inspectContent(at, depth, c); err != nil {
		return err
	}
	return fail
}

// remember enters what the engines said about the file itself: some containers
// contain themselves.
func (f *file) remember() {
	o := &f.objects[0]
	if o.Hash.IsZero() || len(o.Reasons) > 0 {
		return
	}
	f.known[o.Hash] = answer{detections: o.Detections}
}
