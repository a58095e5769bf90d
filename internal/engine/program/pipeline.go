package program

import (
	"context"
	"io"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/inspect"
	"github.com/lazaret/lazaret/internal/threat"
)

// pipeline is an inspect.Pipeline that can give its memory back.
type pipeline struct {
	config inspect.Config
	inner  *inspect.Pipeline
}

func newPipeline(c inspect.Config) *pipeline { return &pipeline{config: c, inner: inspect.New(c)} }

// Inspect implements worker.Pipeline.
func (p *pipeline) Inspect(ctx context.Context, r io.ReaderAt, size int64, l engine.Limits, emit func(threat.Object) error) error {
	return p.inner.Inspect(ctx, r, size, l, emit)
}

// release starts over with an empty pipeline: buffers and decoders are freed.
func (p *pipeline) release() {
	_ = p.inner.Close() // it only frees memory
	p.inner = inspect.New(p.config)
}
