package audit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Outbox is where entries wait after their transaction.
type Outbox interface {
	// Pending returns at most n waiting entries in order and the index of the
	// first.
	Pending(ctx context.Context, n int) (first int64, entries [][]byte, err error)
	// Done deletes waiting entries with an index below size.
	Done(ctx context.Context, size int64) error
}

// Appender moves entries from the outbox into the log.
type Appender struct {
	log    *Log
	outbox Outbox
	wake   chan struct{}
	health func(error)
	mu     sync.Mutex // one mover at a time
}

// NewAppender returns an appender; Run drives it. Health is told about every
// failure and, with nil, about every success.
func NewAppender(l *Log, o Outbox, health func(error)) *Appender {
	return &Appender{log: l, outbox: o, health: health, wake: make(chan struct{}, 1)}
}

// Wake tells that the outbox has entries; it never blocks.
func (a *Appender) Wake() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// retry is how long Run waits after a failure, such as a full disk. The entries
// are safe in the outbox meanwhile.
const retry = 2 * time.Second

// Run moves entries whenever it is woken until ctx ends.
func (a *Appender) Run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		err := a.Flush(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if a.health(err); err != nil {
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-again:
		}
	}
}

// Flush moves everything that waits and returns when it is in the log under a
// signed checkpoint.
func (a *Appender) Flush(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		first, entries, err := a.outbox.Pending(ctx, maxUnsigned)
		if err != nil {
			return fmt.Errorf("reading audit outbox: %w", err)
		}
		if len(entries) == 0 {
			return nil
		}
		if err := a.log.Append(first, entries); err != nil {
			return err
		}
		if err := a.outbox.Done(ctx, first+int64(len(entries))); err != nil {
			return fmt.Errorf("emptying audit outbox: %w", err)
		}
	}
}
