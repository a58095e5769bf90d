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

// slot is a place for one worker. Whoever takes it from the pool's idle slots
// owns it, with its worker, until it is released.
type slot struct {
	pool    *Pool
	process *process
	buffer  []byte

	next    atomic.Pointer[handover] // from Swap: use this worker from now on
	current atomic.Pointer[process]  // process, for Stats and watchMemory
	busy    atomic.Bool

	failures int
	retryAt  time.Time
}

// handover is a worker on its way to a slot; nil makes the slot start one with
// its next file.
type handover struct {
	worker *process
	taken  chan struct{} // closed when the slot has it
}

func (s *slot) publish() { s.current.Store(s.process) }

// adopt takes the worker that Swap has for this slot.
func (s *slot) adopt() {
	h := s.next.Swap(nil)
	if h == nil {
		return
	}
	s.drop()
	s.process, s.failures, s.retryAt = h.worker, 0, time.Time{}
	s.publish()
	close(h.taken)
}

// release makes the slot idle.
func (p *Pool) release(s *slot) {
	s.adopt()
	s.busy.Store(false)
	p.idle <- s
	if s.next.Load() != nil {
		p.tend()
	}
}

// tend looks after idle slots: new workers are adopted, dead ones replaced.
func (p *Pool) tend() {
	for range p.slots {
		select {
		case s := <-p.idle:
			s.adopt()
			if s.process != nil && s.process.ended() {
				p.report("worker ended while idle", s.process.lastWords())
				s.drop()
				if !p.config.Lazy && p.ctx.Err() == nil {
					_, _ = s.ensure(false) // the failure is recorded and tried again
				}
			}
			p.idle <- s
		default:
			return
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

// serve runs one task. On return the worker is idle or gone, unless the answer
// is pending: then it releases the slot itself when it is done.
func (s *slot) serve(t *task) exchanged {
	s.adopt()
	for resent := false; ; resent = true {
		w, err := s.ensure(t.alone)
		if err != nil {
			if s.pool.ctx.Err() != nil {
				return exchanged{outcome: outcome{kind: cancelled}}
			}
			return exchanged{outcome: outcome{kind: unavailable, text: err.Error()}}
		}
		o := s.exchange(w, t)
		if errors.Is(o.err, errNothingSent) || o.pending {
			return o
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
		return o
	}
}

// exchanged is an outcome with what the slot needs to know about it.
type exchanged struct {
	outcome
	err     error
	pending bool // the worker still works on it
}

var (
	errNotSent     = errors.New("the worker was gone before it got the file")
	errNothingSent = errors.New("the file was closed before it was sent")
)

// drain is how long a worker may go on with a file nobody waits for before it
// is killed; finishing is cheaper than starting a new worker.
const drain = time.Second

// exchange sends the file and collects the answers. If the caller gives up, the
// slot is busy until the worker has finished or was ended.
func (s *slot) exchange(w *process, t *task) exchanged {
	o := exchanged{outcome: outcome{kind: cancelled, epoch: w.epoch}}
	w.nextID++
	deadline := time.Now().Add(t.limits.Time + s.pool.config.Grace)
	if o.err = t.ctx.Err(); o.err != nil {
		o.err = errors.Join(errNothingSent, o.err)
		return o
	}
	if w.conn.SetDeadline(deadline) != nil || w.ended() {
		o.kind, o.err = crashed, errNotSent
		return o
	}
	if o.err = sendFile(w, w.nextID, t); o.err != nil {
		if !errors.Is(o.err, errNothingSent) {
			o.kind = crashed
		}
		return o
	}
	w.served++
	release := interrupt(w, t.ctx, s.pool.ctx)
	s.collect(w, t.limits.Members+1, &o)
	release()
	if !errors.Is(o.err, os.ErrDeadlineExceeded) {
		return o
	}
	switch {
	case s.pool.ctx.Err() != nil:
		o.kind = cancelled
	case t.ctx.Err() != nil && time.Now().Before(deadline):
		o.kind, o.pending = cancelled, true
		go s.finish(w, t.limits.Members+1, deadline)
	default:
		o.kind = late
		o.text = fmt.Sprintf("inspection was ended after %s", t.limits.Time+s.pool.config.Grace)
	}
	return o
}

// maxAnswer bounds the answers about one file: what a worker says that is not
// itself any more must not fill our memory.
const maxAnswer = 4 * maxDetail

// collect reads the answers to the worker's last request.
func (s *slot) collect(w *process, most int, o *exchanged) {
	for said := 0; ; {
		n, err := w.conn.Read(s.buffer)
		var a answer
		if err == nil {
			a, err = parseAnswer(s.buffer[:n])
		}
		if err == nil && a.id != w.nextID {
			err = fmt.Errorf("answer to request %d instead of %d", a.id, w.nextID)
		}
		if said += n; err == nil && said > maxAnswer {
			err = fmt.Errorf("more than %d bytes", maxAnswer)
		}
		if err == nil && len(o.objects)+len(a.objects) > most {
			err = fmt.Errorf("more than %d objects", most)
		}
		if err != nil {
			o.kind, o.err = crashed, err
			return
		}
		if o.objects == nil {
			o.objects = a.objects
		} else {
			o.objects = append(o.objects, a.objects...)
		}
		if a.done {
			o.kind, o.elapsed, o.text = finished, a.elapsed, a.fault
			return
		}
	}
}

// finish waits for the end of a request that nobody waits for, so that its
// answer cannot be taken for the next one's.
func (s *slot) finish(w *process, most int, deadline time.Time) {
	if soon := time.Now().Add(drain); soon.Before(deadline) {
		deadline = soon
	}
	var o exchanged
	o.err = w.conn.SetDeadline(deadline)
	if o.err == nil {
		release := interrupt(w, context.Background(), s.pool.ctx)
		s.collect(w, most, &o)
		release()
	}
	if o.kind != finished || o.err != nil {
		s.drop()
	}
	s.pool.release(s)
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

// interrupt makes the worker's socket time out when one of the contexts ends.
// The returned function ends that and waits for it, so that a late callback
// never touches the deadline of the next request.
func interrupt(w *process, task, pool context.Context) func() {
	var mu sync.Mutex
	over := false
	now := func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			_ = w.conn.SetDeadline(time.Unix(1, 0)) // if that fails, Read does too
		}
	}
	stopPool := context.AfterFunc(pool, now)
	stopTask := func() bool { return true }
	if task.Done() != nil {
		stopTask = context.AfterFunc(task, now)
	}
	return func() {
		stopPool()
		stopTask()
		mu.Lock()
		over = true
		mu.Unlock()
	}
}
