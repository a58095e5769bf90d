package fanotify

import (
	"context"
	"errors"
	"sync"

	"github.com/lazaret/lazaret/internal/event"
)

// decide asks the handler about one access, in turn. It owns the event's
// descriptors and a place.
func (d *Driver) decide(parent context.Context, e Event, key event.FileKey, mode uint32, epoch uint64) {
	defer d.busy.Done()
	defer func() { <-d.places }()
	ctx, cancel := context.WithTimeout(parent, d.cfg.Deadline)
	defer cancel()
	w := waiter{driver: d, fd: e.FD}
	late := func() {
		if w.answer(!d.closed.Load()) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.count.timeouts.Add(1)
		}
	}
	stop := context.AfterFunc(ctx, late)
	defer stop()

	h := hold(e)
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	case <-ctx.Done():
		late()
		h.close()
		return
	}
	ev := h.event(key, mode)
	a := Answer{Allow: !d.closed.Load()}
	d.guard(func() { a = d.cfg.Handler.Access(ctx, ev) })
	if ctx.Err() != nil {
		late()
	} else {
		w.answer(a.Allow)
	}
	if a.Allow && a.Remember && !ev.Unstable {
		d.marks.offer(h, key, epoch)
		return
	}
	h.close()
}

// waiter is a process that waits for one answer. Whoever is first answers: the
// handler, the deadline or the end of the driver. The lock makes the others
// wait for the write, so that the descriptor's number is not reused before.
type waiter struct {
	driver *Driver
	fd     int32
	mu     sync.Mutex
	done   bool
}

func (w *waiter) answer(allow bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return false
	}
	w.done = true
	if allow {
		w.driver.count.allowed.Add(1)
	} else {
		w.driver.count.denied.Add(1)
	}
	w.driver.respond(w.fd, allow)
	return true
}
