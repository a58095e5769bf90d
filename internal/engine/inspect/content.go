package inspect

import (
	"context"
	"errors"
	"io"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/engine/unpack"
	"github.com/lazaret/lazaret/internal/threat"
)

// content is an object's bytes: all of them in data, or the beginning there and
// the rest to be read from at or rest.
type content struct {
	data     []byte
	size     int64
	at       io.ReaderAt // whole content of a large file
	rest     io.Reader   // what follows data in a member too large for memory
	hashes   *sums       // nil: not computed yet
	complete bool        // all bytes were hashed
}

// inspectContent fills object number at with what the content is, asks the
// engines and unpacks it.
func (f *file) inspectContent(at, depth int, c *content) error {
	typ := filetype.Recognise(c.data)
	if c.hashes == nil {
		c.hashes = f.p.sum(c.data)
	}
	o := &f.objects[at]
	o.Size, o.Type = c.size, string(typ)
	if c.complete {
		o.Hash = c.hashes.sha256
	}
	a, err := f.ask(c, typ)
	if err != nil {
		return err
	}
	o.Detections = a.detections
	for _, d := range a.detections {
		o.Verdict = threat.Worst(o.Verdict, d.Severity.Verdict())
	}
	for _, r := range a.reasons {
		f.note(at, &unpack.Failure{Reason: r})
	}
	return f.open(at, depth, typ, c)
}

// ask returns the engines' answer; equal content inside one file is asked about
// once.
func (f *file) ask(c *content, typ filetype.Type) (answer, error) {
	if a, ok := f.known[c.hashes.sha256]; ok {
		return a, nil
	}
	var a answer
	if len(f.p.cfg.Engines) == 0 {
		a.reasons = append(a.reasons, threat.Reason{Code: threat.ReasonNoSignatures, Text: "no signatures are loaded"})
	}
	ec := &f.p.content
	*ec = engine.Content{Data: c.data, Size: c.size, Type: string(typ), SHA256: c.hashes.sha256, SHA1: c.hashes.sha1, MD5: c.hashes.md5}
	if int64(len(ec.Data)) > f.limits.Buffer {
		ec.Data = ec.Data[:f.limits.Buffer]
	}
	for _, e := range f.p.cfg.Engines {
		found, err := e.Inspect(f.ctx, ec)
		for _, d := range found {
			if d.Severity.Rank() == 0 { // unknown is not harmless
				d.Severity = threat.High
			}
			a.detections = append(a.detections, d)
		}
		if err == nil {
			continue
		}
		if ended := f.ended(); ended != nil {
			return a, ended
		}
		a.reasons = append(a.reasons, engineReason(e, err))
	}
	ec.Data = nil
	if f.known != nil {
		f.known[c.hashes.sha256] = a
	}
	return a, nil
}

// engineReason explains why an engine did not inspect an object.
func engineReason(e engine.Engine, err error) threat.Reason {
	var f *unpack.Failure
	switch {
	case errors.As(err, &f):
		return f.Reason
	case errors.Is(err, context.DeadlineExceeded):
		return threat.Reason{Code: threat.ReasonEngineTimeout, Text: "engine " + e.Name() + " took too long"}
	}
	return threat.Reason{Code: threat.ReasonEngineFailed, Text: "engine " + e.Name() + ": " + unpack.Name(err.Error())}
}
