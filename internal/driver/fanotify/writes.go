package fanotify

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"
)

// writers is how many written files the handler is told about at once.
const writers = 4

type inode struct{ dev, ino uint64 }

// writeQueue holds closed writes that nobody waits for, one per inode: a file
// that is written again before its turn is inspected once, as it is then.
type writeQueue struct {
	mu     sync.Mutex
	queued map[inode]struct{}
	c      chan written
}

type written struct {
	h    *held
	id   inode
	mode uint32
}

func (q *writeQueue) init(limit int) {
	q.queued = make(map[inode]struct{})
	q.c = make(chan written, limit)
}

// enqueue takes over the event. When the queue is full the write is counted
// as lost and the handler is told to rescan.
func (d *Driver) enqueue(e Event) {
	var st unix.Stat_t
	if d.own(e.PID) || unix.Fstat(int(e.FD), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		e.Close()
		return
	}
	q := &d.writes
	w := written{id: inode{st.Dev, st.Ino}, mode: st.Mode}
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.queued[w.id]; ok {
		d.count.coalesced.Add(1)
		e.Close()
		return
	}
	w.h = &held{Event: e}
	select {
	case q.c <- w:
		q.queued[w.id] = struct{}{}
	default:
		e.Close()
		d.count.writesLost.Add(1)
		d.lose()
	}
}

// written tells the handler about closed writes.
func (d *Driver) written(ctx context.Context) error {
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case w := <-d.writes.c:
					d.tell(ctx, w)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// drain closes what is left; such a file is inspected when it is next opened.
func (q *writeQueue) drain() {
	for {
		select {
		case w := <-q.c:
			w.h.close()
		default:
			return
		}
	}
}

func (d *Driver) tell(ctx context.Context, w written) {
	d.writes.mu.Lock()
	delete(d.writes.queued, w.id)
	d.writes.mu.Unlock()
	h := hold(w.h.Event)
	defer h.close()
	var st unix.Stat_t // again: it may have grown since it was queued
	if unix.Fstat(int(h.FD), &st) != nil {
		return
	}
	ev := h.event(keyOf(&st), w.mode)
	d.guard(func() { d.cfg.Handler.Written(ctx, ev) })
}
