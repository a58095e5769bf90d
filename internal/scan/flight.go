package scan

import (
	"context"
	"sync"

	"github.com/lazaret/lazaret/internal/scan/queue"
)

// group lets everybody who wants the same result share one piece of work. The
// work belongs to nobody: it goes on while anyone waits for it, at the priority
// of the most urgent of them, and is cancelled when the last one leaves.
type group[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

type flight[V any] struct {
	done    chan struct{}
	value   V
	err     error
	urgency *queue.Urgency
	waiters int
	cancel  context.CancelFunc
}

// do returns the result of work for key. Lead says that this caller's work
// function ran. prepare is called before the work starts, in the caller: what
// it takes is the work's.
func (g *group[K, V]) do(ctx, life context.Context, key K, u *queue.Urgency, prepare func() (func(context.Context, *queue.Urgency) (V, error), error)) (v V, lead bool, err error) {
	g.mu.Lock()
	f, joined := g.m[key]
	if joined {
		f.waiters++
		g.mu.Unlock()
	} else {
		work, err := prepare()
		if err != nil {
			g.mu.Unlock()
			return v, true, err
		}
		runCtx, cancel := context.WithCancel(life)
		f = &flight[V]{done: make(chan struct{}), urgency: queue.NewUrgency(u.Level()), waiters: 1, cancel: cancel}
		if g.m == nil {
			g.m = map[K]*flight[V]{}
		}
		g.m[key] = f
		g.mu.Unlock()
		go func() {
			defer cancel()
			f.value, f.err = work(runCtx, f.urgency)
			g.mu.Lock()
			if g.m[key] == f {
				delete(g.m, key)
			}
			g.mu.Unlock()
			close(f.done)
		}()
	}
	u.Follow(f.urgency.Raise)
	defer u.Follow(nil)
	select {
	case <-f.done:
		return f.value, !joined, f.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	f.waiters--
	if f.waiters == 0 {
		if g.m[key] == f {
			delete(g.m, key) // whoever comes next starts anew
		}
		f.cancel()
	}
	g.mu.Unlock()
	return v, !joined, context.Cause(ctx)
}
