package scan

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/scan/queue"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
)

// Hit is a file of a scan in which something was found.
type Hit struct {
	Location threat.Location
	// File is open until the function that got the Hit returns.
	File   *os.File
	Key    event.FileKey
	Report Report
}

// Options of one scan. The zero value is an on-demand scan with the defaults.
type Options struct {
	// Limits for files; image layers bring their own.
	Limits engine.Limits
	// Progress is how often a progress line is sent; 0: never.
	Progress time.Duration
	// Resume continues after a cursor, with what was counted up to it.
	Resume Cursor
	Base   api.ScanSummary
	// Done is called after the lines of each file, in the order of the walk.
	Done func(Cursor, *api.ScanSummary) error
	// Found is called for each file with a threat, several at a time and not in
	// order, before its lines are sent; after an interruption it may be called
	// again for the same file.
	Found func(context.Context, Hit) error
}

// Cursor is a position in a scan: everything up to it is done. The zero value
// is the beginning.
type Cursor struct {
	Source   int    `json:"source"`
	Position []byte `json:"position"` // raw bytes of a path, or a layer's number
}

// Scanner runs scans over what requests name.
type Scanner struct {
	Service *Service
	Targets *target.Resolver
}

// Run scans what the request names and hands one line per object (only those
// that are not clean, unless the request wants all) to sink in the order of
// the walk, at the end the summary. Sink is called by one goroutine at a time;
// its error ends the scan. What cannot be read is a line, not an error. After
// an error the summary counts what was handed out.
func (s *Scanner) Run(ctx context.Context, q api.ScanRequest, o Options, sink func(api.ScanLine) error) (sum api.ScanSummary, err error) {
	priority, err := queue.ParsePriority(q.Priority)
	if err != nil {
		return sum, err
	}
	sources, done, err := s.Targets.Sources(ctx, q)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, done()) }()
	r := &run{
		service: s.Service, options: o, priority: priority, all: q.All, sink: sink,
		limits: o.Limits.WithDefaults(), sum: o.Base, start: time.Now(), work: make(chan job),
	}
	r.limitsSum = limitsSum(r.limits)
	r.seq = newSequence(r.emit)
	err = r.do(ctx, sources)
	r.finish()
	if err == nil {
		err = sink(api.ScanLine{Kind: api.LineSummary, Summary: &r.sum})
	}
	return r.sum, err
}

// run is one scan under way.
type run struct {
	service   *Service
	options   Options
	priority  queue.Priority
	all       bool
	sink      func(api.ScanLine) error
	limits    engine.Limits
	limitsSum uint32
	start     time.Time
	seq       *sequence
	work      chan job
	total     atomic.Int64

	sum api.ScanSummary // guarded by seq
}

type job struct {
	number uint64
	source int
	item   target.Item
}

// outcome is what became of one item.
type outcome struct {
	ready    bool
	source   int
	position string
	location threat.Location
	size     int64
	problem  *threat.Reason
	report   Report
}

func (r *run) do(ctx context.Context, sources []target.Source) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if r.options.Progress > 0 {
		defer r.progress(ctx, sources)()
	}
	funcs := []func(context.Context) error{func(ctx context.Context) error {
		defer close(r.work)
		defer context.AfterFunc(ctx, func() { r.seq.fail(context.Cause(ctx)) })()
		return r.walk(ctx, sources)
	}}
	// More than the engine's workers, so that files are opened and hashed while
	// the engine works.
	for range 2*r.service.Workers() + 2 {
		funcs = append(funcs, r.worker)
	}
	err := task.Run(ctx, funcs...)
	if err == nil {
		err = context.Cause(ctx) // task.Run takes a cancelled scan for a clean end
	}
	return err
}

// walk numbers the items, answers what is known and hands the rest to workers.
func (r *run) walk(ctx context.Context, sources []target.Source) error {
	for n := r.options.Resume.Source; n < len(sources); n++ {
		after := ""
		if n == r.options.Resume.Source {
			after = string(r.options.Resume.Position)
		}
		err := sources[n].Walk(ctx, after, func(it target.Item) error {
			number, err := r.seq.issue()
			if err != nil {
				it.Release()
				return err
			}
			want := needVerdict
			if r.all {
				want = needCheap // details come from the disk in parallel
			}
			if o, ok := r.quick(ctx, n, &it, want); ok {
				it.Release()
				return r.seq.finish(number, o)
			}
			select {
			case r.work <- job{number: number, source: n, item: it}:
				return nil
			case <-ctx.Done():
				it.Release()
				return context.Cause(ctx)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// quick answers without opening the file.
func (r *run) quick(ctx context.Context, source int, it *target.Item, n need) (outcome, bool) {
	o := outcome{source: source, position: it.Position, location: it.Location, size: it.Size, problem: it.Problem}
	if it.Problem != nil {
		return o, true
	}
	if it.Volatile || it.Key == (event.FileKey{}) {
		return o, false
	}
	limits := r.limitsSum
	if it.Limits != (engine.Limits{}) {
		limits = limitsSum(it.Limits.WithDefaults())
	}
	rep, ok := r.service.known(ctx, it.Key, limits, n)
	if !ok || rep.Verdict.Threat() && r.options.Found != nil {
		return o, false // Found wants the file open
	}
	if it.Note {
		r.service.Remember(rep.Hash, it.Location)
	}
	o.report = rep
	return o, true
}

func (r *run) worker(ctx context.Context) error {
	for j := range r.work {
		o, err := r.inspect(ctx, &j)
		j.item.Release()
		if err != nil {
			return err
		}
		if err := r.seq.finish(j.number, o); err != nil {
			return err
		}
	}
	return nil
}

// inspect opens and inspects one item; a file that changes meanwhile gets one
// more chance. The error is that of the scan: ctx, or of Found.
func (r *run) inspect(ctx context.Context, j *job) (o outcome, err error) {
	it := &j.item
	o, ok := r.quick(ctx, j.source, it, needAll)
	if ok {
		return o, nil
	}
	for attempt := 0; ; attempt++ {
		again, err := r.attempt(ctx, it, &o, attempt > 0 || it.Volatile)
		if err != nil || !again {
			return o, err
		}
	}
}

func (r *run) attempt(ctx context.Context, it *target.Item, o *outcome, last bool) (again bool, err error) {
	f, key, err := it.Open(ctx)
	if err != nil {
		return false, r.failed(ctx, o, err)
	}
	defer f.Close()
	o.size, o.problem = key.Size, nil
	limits := it.Limits
	if limits == (engine.Limits{}) {
		limits = r.limits
	}
	o.report, err = r.ask(ctx, Request{
		File: f, Key: key, Priority: r.priority, Location: it.Location, Limits: limits, Volatile: it.Volatile,
	})
	if err != nil {
		return false, r.failed(ctx, o, err)
	}
	if !it.Hash.IsZero() && o.report.Hash != it.Hash {
		o.report = mark(o.report, threat.Reason{Code: threat.ReasonDamaged, Text: "The content is not what its digest says."})
	}
	replaced := !it.Current(key)
	if (replaced || o.report.Has(threat.ReasonChanged)) && !last {
		return true, nil
	}
	if replaced && !o.report.Has(threat.ReasonChanged) {
		o.report = mark(o.report, reasonChanged)
	}
	if o.report.Verdict.Threat() && r.options.Found != nil {
		err = r.options.Found(ctx, Hit{Location: it.Location, File: f, Key: key, Report: o.report})
	}
	return false, err
}

// ask waits while the service's queue is full: a scan has time.
func (r *run) ask(ctx context.Context, req Request) (Report, error) {
	for {
		rep, err := r.service.Inspect(ctx, req)
		if !errors.Is(err, queue.ErrFull) {
			return rep, err
		}
		select {
		case <-ctx.Done():
			return Report{}, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// failed turns an error into the outcome's problem, unless the scan is over.
func (r *run) failed(ctx context.Context, o *outcome, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, context.Canceled) && r.service.life.Err() != nil {
		return err // the service is being closed
	}
	o.problem = problemOf(err)
	o.report = Report{}
	return nil
}
