package signature

import (
	"context"
	"fmt"
	"os"

	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/engine/worker"
)

// Sandboxed compiles rules with the engine program, in its sandbox.
type Sandboxed struct {
	Program string // path of lazaret-engine
}

// Compile implements Compiler.
func (s Sandboxed) Compile(ctx context.Context, sources []ruleset.Source, dir string) (*Compilation, error) {
	var request worker.CompileRequest
	for _, src := range sources {
		request.Sources = append(request.Sources, worker.Source{Name: src.Name, Text: src.Text})
	}
	report, err := worker.Compile(ctx, s.Program, request, dir)
	if err != nil {
		return nil, fmt.Errorf("compiling rules: %w", err)
	}
	return &Compilation{Rules: report.Rules, Errors: report.Errors}, nil
}

// Bundle returns the active bundle for use in this process, without the way
// over TUF: whoever holds the repository holds its keys. The error wraps
// ErrUnpublished if there is none.
func (r *Repository) Bundle() (*Bundle, error) {
	active := r.Active()
	if active == nil {
		return nil, ErrUnpublished
	}
	data, err := os.ReadFile(r.bundlePath(active.Epoch))
	if err != nil {
		return nil, fmt.Errorf("reading bundle %d: %w", active.Epoch, err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("reading bundle %d: %w", active.Epoch, err)
	}
	return &Bundle{Manifest: m, Digest: digestOf(data), blobs: r.blobs}, nil
}
