package program

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/threat"
)

// pipeline inspects plain files.
type pipeline struct {
	engines []engine.Engine
	hashes  *hashset.Engine
	buffer  []byte
}

func newPipeline(engines []engine.Engine, hashes *hashset.Engine) *pipeline {
	return &pipeline{engines: engines, hashes: hashes}
}

func (p *pipeline) release() { p.buffer = nil }

// Inspect implements worker.Pipeline.
func (p *pipeline) Inspect(ctx context.Context, r io.ReaderAt, size int64, limits engine.Limits, emit func(threat.Object) error) error {
	n := min(size, limits.Buffer)
	if int64(cap(p.buffer)) < n {
		p.buffer = make([]byte, n)
	}
	m, err := r.ReadAt(p.buffer[:n], 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("reading: %w", err)
	}
	data := p.buffer[:m]
	c := engine.Content{Data: data, Size: size, SHA256: sha256.Sum256(data)}
	if p.hashes.NeedSHA1(size) {
		h := sha1.Sum(data)
		c.SHA1 = &h
	}
	if p.hashes.NeedMD5(size) {
		h := md5.Sum(data)
		c.MD5 = &h
	}
	o := threat.Object{Hash: c.SHA256, Size: size, Verdict: threat.Clean}
	if int64(m) != size {
		o.Verdict = threat.Partial
		o.Reasons = append(o.Reasons, threat.Reason{Code: threat.ReasonTooLarge, Text: "larger than the buffer"})
	}
	for _, e := range p.engines {
		found, err := e.Inspect(ctx, &c)
		if err != nil {
			o.Verdict = threat.Worst(o.Verdict, threat.Partial)
			o.Reasons = append(o.Reasons, threat.Reason{Code: threat.ReasonLimitTime, Text: err.Error()})
		}
		for _, d := range found {
			o.Verdict = threat.Worst(o.Verdict, d.Severity.Verdict())
		}
		o.Detections = append(o.Detections, found...)
	}
	return emit(o)
}
