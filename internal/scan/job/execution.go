package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
)

var errCancelled = errors.New("the scan was cancelled")

const (
	saveEvery     = time.Second
	saveLines     = 1000
	progressEvery = 2 * time.Second
	retryEvery    = 30 * time.Second // after the database refused a write
)

// execution is a scan that is running.
type execution struct {
	jobs     *Jobs
	rec      *record
	cancel   context.CancelCauseFunc
	progress atomic.Pointer[api.ScanSummary]

	lines []api.ScanLine // since the last save
	full  bool           // MaxResults was reached
	base  time.Duration  // elapsed in earlier runs
	began time.Time
	saved time.Time
}

// lane runs scans of one priority, one after another.
func (j *Jobs) lane(ctx context.Context, lane string) error {
	for {
		e, runCtx, err := j.take(ctx, lane)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrNotFound):
			select {
			case <-ctx.Done():
			case <-j.wake[lane]:
			}
			continue
		case err == nil:
			err = e.run(ctx, runCtx)
			j.give(e)
		}
		if err == nil {
			j.cfg.Conditions.Clear(ConditionWrite)
			continue
		}
		j.trouble(err)
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

// take picks the next scan of a lane and marks it as running here.
func (j *Jobs) take(ctx context.Context, lane string) (*execution, context.Context, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := j.store.next(ctx, lane, func(id string) bool { _, ok := j.running[id]; return ok })
	if err != nil {
		return nil, nil, err
	}
	runCtx, cancel := context.WithCancelCause(ctx)
	e := &execution{jobs: j, rec: r, cancel: cancel, base: r.Summary.Elapsed, began: time.Now(), saved: time.Now()}
	j.running[r.ID] = e
	return e, runCtx, nil
}

func (j *Jobs) give(e *execution) {
	e.cancel(nil)
	j.mu.Lock()
	delete(j.running, e.rec.ID)
	j.mu.Unlock()
}

func (j *Jobs) trouble(err error) {
	j.cfg.Logger.Error("storing scan state", slog.Any("error", err))
	j.cfg.Conditions.Raise(threat.Condition{
		Code: ConditionWrite, Severity: threat.Medium,
		Text:   "The state of scans cannot be stored: " + err.Error(),
		Advice: "Free space on the file system of the state directory. Scans wait and go on by themselves.",
	})
}

// run runs the scan to its end, or until ctx (the service's) ends. The error
// is one of storing.
func (e *execution) run(ctx, runCtx context.Context) error {
	store := context.WithoutCancel(ctx)
	r := e.rec
	r.State = api.ScanRunning
	if err := e.save(store); err != nil {
		return err
	}
	o := scan.Options{
		Progress: progressEvery, Resume: r.cursor, Base: r.Summary,
		Done: func(c scan.Cursor, s *api.ScanSummary) error { return e.done(store, c, s) },
	}
	if found := e.jobs.cfg.Found; found != nil {
		o.Found = func(ctx context.Context, h scan.Hit) error { return found(ctx, r.ID, h) }
	}
	sum, err := e.jobs.cfg.Runner.Run(runCtx, r.Request, o, e.line)
	var failed *storeError
	switch {
	case errors.As(err, &failed):
		return failed.error
	case ctx.Err() != nil:
		return e.save(store) // goes on after the restart
	case errors.Is(context.Cause(runCtx), errCancelled):
		r.State = api.ScanCancelled
	case err != nil:
		r.State, r.Error = api.ScanFailed, err.Error()
	default:
		r.State, r.Summary = api.ScanDone, sum
	}
	r.Summary.Elapsed = e.base + time.Since(e.began)
	if e.full {
		r.Error = fmt.Sprintf("Only the first %d results were kept.", e.jobs.cfg.MaxResults)
	}
	now := time.Now().UTC()
	r.Finished = &now
	if err := e.save(store); err != nil {
		return err
	}
	return e.jobs.store.prune(store, e.jobs.cfg.Retain)
}

// storeError tells an error of the database from one of the scan.
type storeError struct{ error }

// line takes a line of the scan.
func (e *execution) line(l api.ScanLine) error {
	switch l.Kind {
	case api.LineObject:
		if e.rec.lines+int64(len(e.lines)) >= e.jobs.cfg.MaxResults {
			e.full = true
			return nil
		}
		e.lines = append(e.lines, l)
	case api.LineProgress:
		e.progress.Store(l.Summary)
		s := e.rec.Scan
		s.Node, s.Summary = e.jobs.cfg.Node, *l.Summary
		e.jobs.cfg.Changed(s)
	}
	return nil
}

// done takes note that everything up to a cursor is done, and now and then
// stores it.
func (e *execution) done(ctx context.Context, c scan.Cursor, s *api.ScanSummary) error {
	e.rec.cursor, e.rec.Summary = c, *s
	if len(e.lines) < saveLines && time.Since(e.saved) < saveEvery {
		return nil
	}
	e.rec.Summary.Elapsed = e.base + time.Since(e.began)
	if err := e.jobs.store.save(ctx, e.rec, e.lines); err != nil {
		return &storeError{err}
	}
	e.lines, e.saved = e.lines[:0], time.Now()
	return nil
}

// save stores the state and tells who listens.
func (e *execution) save(ctx context.Context) error {
	if err := e.jobs.store.save(ctx, e.rec, e.lines); err != nil {
		return err
	}
	e.lines, e.saved = e.lines[:0], time.Now()
	s := e.rec.Scan
	s.Node = e.jobs.cfg.Node
	e.jobs.cfg.Changed(s)
	return nil
}
