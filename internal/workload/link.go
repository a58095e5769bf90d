package workload

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrNotConnected is the state of a Link that has not been up yet.
var ErrNotConnected = errors.New("not connected yet")

// Link keeps an inventory connected to its runtime: it runs one session after
// the other, with growing pauses, and remembers how it stands. Inventories
// embed it. The zero value is not usable; see NewLink.
type Link struct {
	log *slog.Logger

	mu    sync.Mutex
	state error
}

// NewLink returns a link whose log lines have the given attributes; a nil
// logger means no log.
func NewLink(log *slog.Logger, attrs ...any) *Link {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Link{log: log.With(attrs...), state: ErrNotConnected}
}

// Log is the link's logger.
func (l *Link) Log() *slog.Logger { return l.log }

// State is nil while the inventory is connected and complete; else it says
// what is wrong. It wraps fs.ErrNotExist when the runtime's socket is not
// there, which is usual on hosts without that runtime.
func (l *Link) State() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *Link) set(err error) {
	l.mu.Lock()
	old := l.state
	l.state = err
	l.mu.Unlock()
	switch {
	case err == nil && old != nil:
		l.log.Info("inventory of workloads is complete")
	case err != nil && (old == nil || errors.Is(old, ErrNotConnected)):
		l.log.Warn("inventory of workloads is out of date", slog.Any("error", err))
	}
}

const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Follow runs sessions until ctx ends, which is no error. A session calls
// ready once the inventory is complete and returns when its connection breaks.
func (l *Link) Follow(ctx context.Context, session func(ctx context.Context, ready func()) error) error {
	pause := firstPause
	for {
		start := time.Now()
		err := session(ctx, func() { l.set(nil) })
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("connection ended")
		}
		l.set(err)
		if time.Since(start) > time.Minute {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause + rand.N(pause)):
		}
		pause = min(2*pause, lastPause)
	}
}
