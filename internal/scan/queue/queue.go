// Package queue hands out inspection slots by priority: on-access before
// on-demand before scheduled, first come first served inside a class. Some
// slots can be kept for on-access work, so that it never waits behind a big
// file of a scan.
package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Priority is the class of a piece of work.
type Priority uint8

// The classes, least urgent first.
const (
	Scheduled Priority = iota
	OnDemand
	OnAccess
	classes
)

// String returns the word of the command line: on-access, on-demand, scheduled.
func (p Priority) String() string {
	switch p {
	case OnAccess:
		return "on-access"
	case OnDemand:
		return "on-demand"
	}
	return "scheduled"
}

// ParsePriority reads the words that a scan request may use; empty is
// on-demand. On-access is not for requests.
func ParsePriority(s string) (Priority, error) {
	switch s {
	case "", "on-demand":
		return OnDemand, nil
	case "scheduled":
		return Scheduled, nil
	}
	return 0, fmt.Errorf("unknown priority %q: want on-demand or scheduled", s)
}

// ErrFull says that too much work waits already. On-access callers answer by
// their policy, others try again later.
var ErrFull = errors.New("the inspection queue is full")

// Config of a Queue.
type Config struct {
	Slots   int // pieces of work at the same time; at least 1
	Reserve int // of these only for on-access; at most Slots-1
	Waiting int // bound per class; default 4096
}

// Queue is safe for concurrent use.
type Queue struct {
	cfg Config

	mu         sync.Mutex
	busy       int
	background int // of busy: not on-access
	waiting    [classes][]*waiter
}

type waiter struct {
	class Priority
	ready chan struct{} // closed when the slot is given
	given bool
}

// New makes a queue.
func New(cfg Config) (*Queue, error) {
	if cfg.Slots < 1 || cfg.Reserve < 0 || cfg.Reserve >= cfg.Slots {
		return nil, fmt.Errorf("making queue: %d slots with %d reserved", cfg.Slots, cfg.Reserve)
	}
	if cfg.Waiting <= 0 {
		cfg.Waiting = 4096
	}
	return &Queue{cfg: cfg}, nil
}

// Acquire waits for a slot. The urgency may be raised meanwhile, which moves
// the waiting work to the more urgent class. The caller calls release exactly
// once. It returns ErrFull or the cause of ctx.
func (q *Queue) Acquire(ctx context.Context, u *Urgency) (release func(), err error) {
	// Lock order: an Urgency's before the queue's.
	w := &waiter{class: u.Level(), ready: make(chan struct{})}
	q.mu.Lock()
	if len(q.waiting[w.class]) >= q.cfg.Waiting {
		q.mu.Unlock()
		return nil, ErrFull
	}
	q.waiting[w.class] = append(q.waiting[w.class], w)
	q.dispatch()
	q.mu.Unlock()
	u.Follow(func(p Priority) { q.raise(w, p) })
	defer u.Follow(nil)
	select {
	case <-w.ready:
	case <-ctx.Done():
		if !q.abandon(w) {
			q.release(w)
		}
		return nil, context.Cause(ctx)
	}
	var once sync.Once
	return func() { once.Do(func() { q.release(w) }) }, nil
}

// Waiting is the number of pieces of work of a class without a slot.
func (q *Queue) Waiting(p Priority) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting[p])
}

// dispatch gives free slots to those who wait; mu is held.
func (q *Queue) dispatch() {
	for class := OnAccess; ; class-- {
		for len(q.waiting[class]) > 0 && q.busy < q.cfg.Slots &&
			(class == OnAccess || q.background < q.cfg.Slots-q.cfg.Reserve) {
			w := q.waiting[class][0]
			q.waiting[class][0] = nil
			q.waiting[class] = q.waiting[class][1:]
			q.busy++
			if class != OnAccess {
				q.background++
			}
			w.given = true
			close(w.ready)
		}
		if class == Scheduled {
			return
		}
	}
}

func (q *Queue) release(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	if w.class != OnAccess {
		q.background--
	}
	q.dispatch()
}

// abandon takes a waiter out; false if it has its slot already.
func (q *Queue) abandon(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.given {
		return false
	}
	q.remove(w)
	return true
}

func (q *Queue) remove(w *waiter) {
	list := q.waiting[w.class]
	for i := range list {
		if list[i] == w {
			q.waiting[w.class] = append(list[:i], list[i+1:]...)
			return
		}
	}
}

func (q *Queue) raise(w *waiter, p Priority) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.given || p <= w.class {
		return
	}
	q.remove(w)
	w.class = p
	q.waiting[p] = append(q.waiting[p], w)
	q.dispatch()
}
