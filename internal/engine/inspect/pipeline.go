package inspect

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/unpack"
	"github.com/lazaret/lazaret/internal/threat"
)

// Config says what a Pipeline is made of.
type Config struct {
	// Engines are asked about every object, in order.
	Engines []engine.Engine
	// NeedSHA1 and NeedMD5 say that a loaded set needs these hashes.
	NeedSHA1, NeedMD5 bool
	// Limits hold where those given to Inspect are zero.
	Limits engine.Limits
}

// Pipeline inspects files. It is used by one goroutine at a time, as its
// engines are.
type Pipeline struct {
	cfg     Config
	unpack  *unpack.Unpacker
	buffers [][]byte // free buffers
	content engine.Content
}

// New returns a Pipeline. Close it to release its decoders.
func New(cfg Config) *Pipeline {
	return &Pipeline{cfg: cfg, unpack: unpack.New()}
}

// Close releases the decoders. The engines belong to the caller.
func (p *Pipeline) Close() error {
	p.unpack.Close()
	p.buffers = nil
	return nil
}

// Inspect reads size bytes of content from r and passes the object, then every
// member found in it, to emit. Hash is set only on objects whose content was
// read completely. The verdict of an object is the worst of its detections and,
// if something about it could not be inspected, partial; a container has the
// reasons of its own unpacking, its members have their own verdicts.
//
// An error is that of emit or ctx; everything about the content itself,
// unreadable or hostile, is in the objects. When the time of the limits is over
// before that of ctx, the objects found so far are emitted with
// threat.ReasonLimitTime.
func (p *Pipeline) Inspect(ctx context.Context, r io.ReaderAt, size int64, limits engine.Limits, emit func(threat.Object) error) error {
	limits = merge(limits, p.cfg.Limits).WithDefaults()
	budget := unpack.NewBudget(limits, size)
	parent := ctx
	ctx, cancel := context.WithDeadline(ctx, budget.Deadline())
	defer cancel()
	f := &file{p: p, ctx: ctx, parent: parent, limits: limits, budget: budget}
	if err := f.inspect(r, size); err != nil {
		return fmt.Errorf("inspecting: %w", err)
	}
	if err := f.ended(); err != nil {
		return fmt.Errorf("inspecting: %w", err)
	}
	for i := range f.objects {
		if err := emit(f.objects[i]); err != nil {
			return fmt.Errorf("emitting an object: %w", err)
		}
	}
	return nil
}

// merge fills the zero limits of l from def.
func merge(l, def engine.Limits) engine.Limits {
	if l.Depth == 0 {
		l.Depth = def.Depth
	}
	if l.Members == 0 {
		l.Members = def.Members
	}
	if l.Time == 0 {
		l.Time = def.Time
	}
	for _, v := range []struct {
		to   *int64
		from int64
	}{
		{&l.MemberSize, def.MemberSize}, {&l.Total, def.Total}, {&l.Ratio, def.Ratio},
		{&l.RatioAfter, def.RatioAfter}, {&l.Buffer, def.Buffer},
	} {
		if *v.to == 0 {
			*v.to = v.from
		}
	}
	return l
}

// file is the inspection of one file.
type file struct {
	p       *Pipeline
	ctx     context.Context // ends when the time of the limits is over
	parent  context.Context // the caller's
	limits  engine.Limits
	budget  *unpack.Budget
	objects []threat.Object
	known   map[threat.Hash]answer
	one     [1]threat.Object
}

// answer is what the engines said about a content.
type answer struct {
	detections []threat.Detection
	reasons    []threat.Reason
}

// stamp is what changes when a file is written to.
type stamp struct {
	size int64
	time time.Time
}

// stampOf returns the stamp of content that has one, such as *os.File.
func stampOf(r io.ReaderAt) (stamp, bool) {
	f, ok := r.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return stamp{}, false
	}
	info, err := f.Stat()
	if err != nil {
		return stamp{}, false
	}
	return stamp{info.Size(), info.ModTime()}, true
}

// ended returns the caller's reason to stop, nil if there is none. That the
// time of the limits is over is no error.
func (f *file) ended() error { return f.parent.Err() }
