package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// slot is a place for one worker. Its goroutine owns the worker: it starts,
// uses, replaces and ends it.
type slot struct {
	pool    *Pool
	replace chan *process // from Swap: use this worker from now on

	process *process
	buffer  []byte
	current atomic.Pointer[process] // the same, for Stats and watchMemory
	busy    atomic.Bool

	failures int
	retryAt  time.Time
}

func (s *slot) publish() { s.current.Store(s.process) }

func (s *slot) run() {
	s.buffer = make([]byte, maxMessage)
	if s.process == nil && !s.pool.config.Lazy && s.pool.bundle.Load() != nil {
		_, _ = s.ensure(false) // the failure is recorded and tried again
	}
	for {
		var dead chan struct{}
		if s.process != nil {
			dead = s.process.dead
		}
		select {
		case <-s.pool.ctx.Done():
			return
		case w := <-s.replace:
			s.drop()
			s.process, s.failures = w, 0
			s.publish()
		case <-dead:
			err := s.process.lastWords()
			s.pool.report("worker ended while idle", err)
			s.drop()
			if !s.pool.config.Lazy {
				_, _ = s.ensure(false)
			}
		case t := <-s.pool.queue:
			s.busy.Store(true)
			o := s.serve(t)
			s.busy.Store(false)
			t.done <- o
		}
	}
}

// drop ends the slot's worker.
func (s *slot) drop() {
	if s.process != nil {
		s.current.Store(nil)
		s.process.stop()
		s.process = nil
	}
}

// Back-off between attempts to start a worker.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// ensure returns a running worker, a new one if fresh and the present one has
// already inspected something. After failures it refuses until the back-off
// has passed, so that callers get an answer instead of waiting.
func (s *slot) ensure(fresh bool) (*process, error) {
	if s.process != nil && fresh && s.process.served > 0 {
		s.drop()
	}
	if s.process != nil {
		return s.process, nil
	}
	if wait := time.Until(s.retryAt); wait > 0 {
		return nil, fmt.Errorf("the engine could not be started, next attempt in %s: %s",
			wait.Round(time.Millisecond), s.pool.Stats().LastError)
	}
	w, err := s.pool.start(s.pool.ctx, s.pool.bundle.Load())
	if err != nil {
		s.retryAt = time.Now().Add(min(minBackoff<<min(s.failures, 10), maxBackoff))
		s.failures++
		s.pool.report("starting a worker did not work", err)
		return nil, err
	}
	s.pool.restarts.Add(1)
	s.failures = 0
	s.process = w
	s.publish()
	return w, nil
}

// serve runs one task. On return the worker is idle or gone.
func (s *slot) serve(t *task) outcome {
	for resent := false; ; resent = true {
		w, err := s.ensure(t.alone)
		if err != nil {
			if s.pool.ctx.Err() != nil {
				return outcome{kind: cancelled}
			}
			return outcome{kind: unavailable, text: err.Error()}
		}
		o := s.exchange(w, t)
		if errors.Is(o.err, errNothingSent) {
			return o.outcome
		}
		if errors.Is(o.err, io.EOF) {
			w.expire()
		}
		if o.kind != finished {
			s.drop()
		}
		// A worker that was already dead says nothing about this file.
		if errors.Is(o.err, errNotSent) && !resent && t.ctx.Err() == nil {
			continue
		}
		if o.kind == crashed {
			switch {
			case w.overMemory.Load():
				o.text = fmt.Sprintf("the engine used more than %d MiB on it", s.pool.config.MemoryLimit>>20)
			default:
				o.text = fmt.Sprintf("the engine ended on it: %v (%v)", o.err, w.lastWords())
			}
		}
		return o.outcome
	}
}

type exchanged struct {
	outcome
	err error
}

var (
	errNotSent     = errors.New("the worker was gone before it got the file")
	errNothingSent = errors.New("the file was closed before it was sent")
)

// drain is how long a worker may go on with a file nobody waits for before it
// is killed; finishing is cheaper than starting a new worker.
const drain = time.Second

// exchange sends the file and collects the answers. Except after finished the
// worker's state is unknown and it must be dropped.
func (s *slot) exchange(w *process, t *task) exchanged {
	fail := func(kind outcomeKind, err error, o outcome) exchanged {
		o.kind = kind
		return exchanged{outcome: o, err: err}
	}
	o := outcome{epoch: w.epoch}
	w.nextID++
	id := w.nextID
	deadline := time.Now().Add(t.limits.Time + s.pool.config.Grace)
	if err := w.conn.SetDeadline(deadline); err != nil {
		return fail(crashed, errNotSent, o)
	}
	if t.ctx.Err() != nil {
		return fail(cancelled, errNothingSent, o)
	}
	if err := sendFile(w, id, t); err != nil {
		if errors.Is(err, errNothingSent) {
			return fail(cancelled, err, o)
		}
		return fail(crashed, err, o)
	}
	w.served++
	release := interrupt(w, t.ctx, s.pool.ctx, deadline)
	defer release()
	for {
		n, err := w.conn.Read(s.buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if t.ctx.Err() != nil || s.pool.ctx.Err() != nil {
				return fail(cancelled, err, o)
			}
			o.text = fmt.Sprintf("inspection was ended after %s", t.limits.Time+s.pool.config.Grace)
			return fail(late, err, o)
		case err != nil:
			return fail(crashed, err, o)
		}
		a, err := parseAnswer(s.buffer[:n])
		if err == nil && a.id != id {
			err = fmt.Errorf("answer to request %d instead of %d", a.id, id)
		}
		if err == nil && len(o.objects)+len(a.objects) > t.limits.Members+1 {
			err = fmt.Errorf("more than %d objects", t.limits.Members+1)
		}
		if err != nil {
			return fail(crashed, err, o)
		}
		if o.objects == nil {
			o.objects = a.objects
		} else {
			o.objects = append(o.objects, a.objects...)
		}
		if a.done {
			o.kind, o.elapsed, o.text = finished, a.elapsed, a.fault
			return exchanged{outcome: o}
		}
	}
}

// sendFile passes the request and the file's descriptor.
func sendFile(w *process, id uint64, t *task) error {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return errors.Join(errNothingSent, err)
	}
	request := appendRequest(make([]byte, 0, requestSize), id, t.limits)
	var failed error
	err = raw.Control(func(fd uintptr) {
		_, _, failed = w.conn.WriteMsgUnix(request, unix.UnixRights(int(fd)), nil)
	})
	if err != nil {
		return errors.Join(errNothingSent, err)
	}
	if failed != nil {
		return errNotSent
	}
	return nil
}

// interrupt shortens the worker's deadline when one of the contexts ends. The
// returned function ends that and waits for it, so that a late callback never
// touches the deadline of the next request.
func interrupt(w *process, task, pool context.Context, deadline time.Time) func() {
	var mu sync.Mutex
	over := false
	set := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		if !over && at.Before(deadline) {
			_ = w.conn.SetDeadline(at) // the worker's death is noticed by Read
		}
	}
	stopPool := context.AfterFunc(pool, func() { set(time.Unix(1, 0)) })
	stopTask := func() bool { return true }
	if task.Done() != nil {
		stopTask = context.AfterFunc(task, func() { set(time.Now().Add(drain)) })
	}
	return func() {
		stopPool()
		stopTask()
		mu.Lock()
		over = true
		mu.Unlock()
	}
}
