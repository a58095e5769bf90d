package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Swap activates another compiled bundle without a gap: for each slot in turn
// a worker with the new signatures is started and proved ready before it
// replaces the old one, so that at most one worker more than usual exists. If
// one cannot be started, the old bundle stays active everywhere and the error
// says why. Results name the epoch they were made with.
func (p *Pool) Swap(ctx context.Context, dir string, epoch threat.Epoch) error {
	p.swap.Lock()
	defer p.swap.Unlock()
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	next, err := openBundle(dir, epoch)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()

	previous := p.bundle.Load()
	for i, s := range p.slots {
		var w *process
		var err error
		if i == 0 || !p.config.Lazy || s.current.Load() != nil {
			w, err = p.start(ctx, next)
		}
		if err == nil && i == 0 {
			// From now on a worker that must be started anew gets the new
			// signatures: they were proved to load.
			p.bundle.Store(next)
		}
		if err == nil {
			err = s.hand(ctx, w)
		}
		if err == nil {
			continue
		}
		if i > 0 {
			p.rollBack(previous, p.slots[:i])
		} else {
			p.bundle.Store(previous)
		}
		next.close()
		return fmt.Errorf("activating signatures of epoch %d: %w", epoch, err)
	}
	if previous != nil {
		previous.close()
	}
	p.log.InfoContext(ctx, "signatures activated", "epoch", uint64(epoch), "dir", dir)
	return nil
}

// hand gives a worker to the slot, which takes it between two files. Nil makes
// it start one with its next file.
func (s *slot) hand(ctx context.Context, w *process) error {
	h := &handover{worker: w, taken: make(chan struct{})}
	s.next.Store(h)
	s.pool.tend()
	select {
	case <-h.taken:
		return nil
	case <-ctx.Done():
	}
	if s.next.CompareAndSwap(h, nil) {
		if w != nil {
			w.stop()
		}
		return context.Cause(ctx)
	}
	<-h.taken
	return nil
}

// rollBack returns slots to the previous bundle.
func (p *Pool) rollBack(previous *bundle, slots []*slot) {
	p.bundle.Store(previous)
	for _, s := range slots {
		var w *process
		if previous != nil {
			var err error
			if w, err = p.start(p.ctx, previous); err != nil {
				// The slot starts one itself when it is needed.
				p.report("starting a worker with the previous signatures did not work", err)
			}
		}
		if s.hand(p.ctx, w) != nil {
			return // the pool was closed
		}
	}
}

// memoryTick is how often busy workers are weighed.
const memoryTick = 100 * time.Millisecond

// watchMemory kills workers that use more than the limit. RLIMIT_DATA cannot
// do that: it counts what Go and threads reserve, not what is used.
func (p *Pool) watchMemory() {
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		for _, s := range p.slots {
			w := s.current.Load()
			if w == nil || !s.busy.Load() {
				continue
			}
			if w.rss() > p.config.MemoryLimit {
				w.overMemory.Store(true)
				w.kill()
			}
		}
	}
}

// Stats is a pool's state for status, metrics and conditions.
type Stats struct {
	Epoch     threat.Epoch `json:"epoch"`
	Processes int          `json:"processes"` // configured
	Running   int          `json:"running"`
	Busy      int          `json:"busy"`
	Inspected uint64       `json:"inspected"` // files answered by workers
	Crashes   uint64       `json:"crashes"`
	Timeouts  uint64       `json:"timeouts"`
	Restarts  uint64       `json:"restarts"` // workers started after New
	RSS       int64        `json:"rss"`      // resident bytes of all workers; shared pages count in each
	// Ready is what the first running worker said about itself.
	Ready *Readiness `json:"ready,omitempty"`
	// LastError is the last failure to start or keep a worker.
	LastError string `json:"last_error,omitempty"`
}

// Stats returns the pool's state.
func (p *Pool) Stats() Stats {
	st := Stats{Processes: len(p.slots), Inspected: p.inspected.Load(), Crashes: p.crashes.Load(),
		Timeouts: p.timeouts.Load(), Restarts: p.restarts.Load()}
	if b := p.bundle.Load(); b != nil {
		st.Epoch = b.epoch
	}
	if text := p.lastError.Load(); text != nil {
		st.LastError = *text
	}
	for _, s := range p.slots {
		if s.busy.Load() {
			st.Busy++
		}
		if w := s.current.Load(); w != nil {
			st.Running++
			st.RSS += w.rss()
			if st.Ready == nil {
				ready := w.ready
				st.Ready = &ready
			}
		}
	}
	return st
}

func (p *Pool) report(message string, err error) {
	text := err.Error()
	p.lastError.Store(&text)
	if p.ctx.Err() == nil {
		p.log.Warn(message, "error", err)
	}
}
