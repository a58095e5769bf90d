package worker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// task is one file on its way through a worker.
type task struct {
	ctx    context.Context
	file   *os.File
	limits engine.Limits
	alone  bool // in a worker that has inspected nothing else
}

type outcomeKind uint8

const (
	finished    outcomeKind = iota // the worker answered completely
	crashed                        // the worker died or broke the protocol
	late                           // the watchdog ended the worker
	unavailable                    // no worker could be started
	cancelled                      // the caller gave up or the pool was closed
)

type outcome struct {
	kind    outcomeKind
	objects []threat.Object // what was answered before
	epoch   threat.Epoch
	elapsed time.Duration
	text    string // the fault, in words
}

// mark lowers an object's standing, never raises it.
func mark(o *threat.Object, v threat.Verdict, code, text string) {
	o.Verdict = threat.Worst(o.Verdict, v)
	o.Reasons = append(o.Reasons, threat.Reason{Code: code, Text: text})
}

// without makes the result of a file that no worker could inspect completely.
// What was found before stays; if that is nothing, the object is named by
// hashing it here, which parses nothing.
func (p *Pool) without(ctx context.Context, f *os.File, epoch threat.Epoch, v threat.Verdict, code, text string,
	objects []threat.Object, start time.Time) (*engine.Result, error) {
	if len(objects) == 0 {
		objects = []threat.Object{{}}
	}
	if o := &objects[0]; o.Hash.IsZero() {
		if st, err := f.Stat(); err == nil {
			o.Size = st.Size()
		}
		h := sha256.New()
		n, err := io.Copy(h, &contextReader{ctx: ctx, r: io.NewSectionReader(f, 0, o.Size)})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			text = fmt.Sprintf("%s; hashing the file: %v", text, err)
		case n == o.Size:
			h.Sum(o.Hash[:0])
		}
	}
	mark(&objects[0], v, code, text)
	return &engine.Result{Objects: objects, Epoch: epoch, Elapsed: time.Since(start)}, nil
}

// contextReader stops reading when the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
