package scan

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/threat"
)

// problemOf says in the user's words why there is no verdict.
func problemOf(err error) *threat.Reason {
	var p *target.Problem
	if errors.As(err, &p) {
		return &p.Reason
	}
	var pe *fs.PathError
	if errors.As(err, &pe) || errors.As(err, new(unix.Errno)) {
		return &threat.Reason{Code: threat.ReasonUnreadable, Text: "Reading is not possible: " + err.Error() + "."}
	}
	return &threat.Reason{Code: threat.ReasonEngineUnavailable, Text: "The file was not inspected: " + err.Error() + "."}
}

// emit counts an outcome, sends its lines and tells the position; seq calls it
// in the order of the walk, one at a time.
func (r *run) emit(o *outcome) error {
	count(&r.sum, o)
	if err := r.lines(o); err != nil {
		return err
	}
	if r.options.Done != nil {
		return r.options.Done(Cursor{Source: o.source, Position: []byte(o.position)}, &r.sum)
	}
	return nil
}

func count(s *api.ScanSummary, o *outcome) {
	if o.problem != nil {
		switch {
		case o.problem.Code == threat.ReasonNotRegular:
			s.Skipped++
			return
		case verdictOf(o.problem) == threat.Error:
			s.Errors++
		default:
			s.Partial++
		}
		s.Files++
		return
	}
	s.Files++
	s.Objects += int64(o.report.Count)
	s.Bytes += o.size
	if o.report.Cached {
		s.Cached++
	}
	switch o.report.Verdict {
	case threat.Clean:
		s.Clean++
	case threat.Suspicious:
		s.Suspicious++
	case threat.Malicious:
		s.Malicious++
	case threat.Partial:
		s.Partial++
	default:
		s.Errors++
	}
}

// verdictOf is the verdict of what was not opened; skipped files have none.
func verdictOf(p *threat.Reason) threat.Verdict {
	switch p.Code {
	case threat.ReasonNotRegular:
		return ""
	case threat.ReasonUnreadable, threat.ReasonEngineUnavailable:
		return threat.Error
	}
	return threat.Partial
}

// lines sends an outcome's lines: one per object, members with the file's path
// before theirs.
func (r *run) lines(o *outcome) error {
	l := api.ScanLine{
		Kind: api.LineObject, Path: o.location.Path, Size: o.size,
		Workload: o.location.Workload, Image: o.location.Image, Layer: o.location.Layer,
	}
	if o.problem != nil {
		l.Verdict, l.Reasons = verdictOf(o.problem), []threat.Reason{*o.problem}
		if l.Verdict == "" && !r.all {
			return nil // counted; listed only on request, there are hundreds in /run
		}
		return r.sink(l)
	}
	l.Cached = o.report.Cached
	for i := range o.report.Objects {
		x := &o.report.Objects[i]
		if x.Verdict == threat.Clean && !r.all {
			continue
		}
		l.SHA256, l.Size, l.Type = x.Hash, x.Size, x.Type
		l.Verdict, l.Reasons, l.Detections = x.Verdict, x.Reasons, x.Detections
		l.Path = o.location.Path
		if x.Member != "" {
			l.Path += "!/" + threat.Printable(x.Member)
		}
		if err := r.sink(l); err != nil {
			return err
		}
	}
	return nil
}

// finish completes the summary.
func (r *run) finish() {
	r.sum.Elapsed = r.options.Base.Elapsed + time.Since(r.start)
	r.sum.Epoch = r.service.Epoch()
	r.sum.Total = 0
}

// progress sends progress lines and counts ahead what there is to do, until
// the function it returns is called.
func (r *run) progress(ctx context.Context, sources []target.Source) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		// A scan of known files is over before counting would help anybody.
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.service.countAfter):
		}
		for _, s := range sources {
			// Count fails only with ctx.
			if s.Count(ctx, func(n int64) { r.total.Add(n) }) != nil {
				return
			}
		}
	})
	wg.Go(func() {
		t := time.NewTicker(r.options.Progress)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			// An error of the sink ends the sequence and with it the scan.
			if r.seq.with(func() error {
				s := r.sum
				s.Elapsed = r.options.Base.Elapsed + time.Since(r.start)
				s.Epoch = r.service.Epoch()
				s.Total = max(r.total.Load(), s.Files)
				return r.sink(api.ScanLine{Kind: api.LineProgress, Summary: &s})
			}) != nil {
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}
