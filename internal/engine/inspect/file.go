package inspect

import (
	"io"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/engine/unpack"
	"github.com/lazaret/lazaret/internal/threat"
)

// inspect reads the file and inspects it with everything in it.
func (f *file) inspect(r io.ReaderAt, size int64) error {
	f.objects = f.one[:0]
	at := f.reserve("")
	n := min(max(size, 0), f.limits.Buffer)
	buf := f.p.buffer(int(n) + 1)
	defer func() { f.p.keep(buf) }()
	// One byte more than expected tells whether the file grew.
	k, err := r.ReadAt(buf[:n+1], 0)
	if err != nil && err != io.EOF {
		return f.unreadable(at, size, err)
	}
	if size > f.limits.Buffer && int64(k) > n {
		return f.inspectLarge(at, r, size, buf[:n])
	}
	if int64(k) != size {
		f.note(at, unpack.Fail(threat.ReasonChanged, "file got another size while it was read"))
	}
	n = min(int64(k), n)
	return f.inspectContent(at, 0, &content{data: buf[:n], size: n, complete: int64(k) == size})
}

// inspectLarge inspects a file that does not fit into the buffer: engines see
// its beginning, hashes all of it, and containers are read from the file.
func (f *file) inspectLarge(at int, r io.ReaderAt, size int64, data []byte) error {
	before, stamped := stampOf(r)
	c := &content{data: data, at: r, size: size}
	f.note(at, unpack.Fail(threat.ReasonTooLarge, "only the first %d of %d bytes were matched with rules", len(data), size))
	h := f.p.hasher()
	h.write(data)
	chunk := f.p.buffer(hashChunk)
	defer f.p.keep(chunk)
	off := int64(len(data))
	for off < size {
		if err := f.ended(); err != nil {
			return err
		}
		if f.ctx.Err() != nil {
			f.note(at, unpack.Fail(threat.ReasonLimitTime, "inspection took longer than %s", f.limits.Time))
			break
		}
		k, err := r.ReadAt(chunk[:min(int64(hashChunk), size-off)], off)
		h.write(chunk[:k])
		off += int64(k)
		if err == io.EOF && off < size {
			f.note(at, unpack.Fail(threat.ReasonChanged, "file became shorter while it was read"))
			c.size = off
			break
		}
		if err != nil && err != io.EOF {
			f.note(at, unpack.Fail(threat.ReasonUnreadable, "reading at %d: %s", off, unpack.Name(err.Error())))
			break
		}
	}
	c.complete = off == size
	c.hashes = h.sums()
	if err := f.inspectContent(at, 0, c); err != nil {
		return err
	}
	if after, _ := stampOf(r); stamped && after != before {
		f.note(at, unpack.Fail(threat.ReasonChanged, "file was written to while it was inspected"))
	}
	return nil
}

// unreadable reports a file that cannot be read at all.
func (f *file) unreadable(at int, size int64, err error) error {
	o := &f.objects[at]
	o.Size, o.Type = size, string(filetype.Data)
	o.Verdict = threat.Error
	o.Reasons = append(o.Reasons, threat.Reason{Code: threat.ReasonUnreadable, Text: "reading: " + unpack.Name(err.Error())})
	return f.ended()
}

// reserve adds an object so that it comes before its members.
func (f *file) reserve(member string) int {
	f.objects = append(f.objects, threat.Object{Member: member, Verdict: threat.Clean})
	return len(f.objects) - 1
}

// note adds a reason to an object, which is then at best partial.
func (f *file) note(at int, fail *unpack.Failure) {
	o := &f.objects[at]
	o.Verdict = threat.Worst(o.Verdict, threat.Partial)
	for _, r := range o.Reasons {
		if r.Code == fail.Code {
			return
		}
	}
	o.Reasons = append(o.Reasons, fail.Reason)
}
