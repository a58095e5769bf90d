package unpack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// Failure is an error that says why content could not be inspected completely.
type Failure struct {
	threat.Reason
}

// Error returns the reason's text.
func (f *Failure) Error() string { return f.Text }

// Fail returns a Failure with the code of a threat.Reason constant.
func Fail(code, format string, args ...any) *Failure {
	return &Failure{threat.Reason{Code: code, Text: fmt.Sprintf(format, args...)}}
}

// Budget limits the unpacking of one file over all its nested containers. Once
// the limit on members, total size, ratio of the whole file or time is reached
// it stays so and ends all walks. It is used by one goroutine.
type Budget struct {
	limits   engine.Limits
	deadline time.Time
	packed   int64 // bytes of the file itself
	unpacked int64 // bytes decompressed or copied out of containers so far
	members  int
	stop     *Failure
}

// NewBudget returns the budget for a file of the given size in bytes; its time
// starts now. Zero limits are the defaults.
func NewBudget(limits engine.Limits, size int64) *Budget {
	limits = limits.WithDefaults()
	return &Budget{limits: limits, deadline: time.Now().Add(limits.Time), packed: size}
}

// Deadline is when the time for the file is over.
func (b *Budget) Deadline() time.Time { return b.deadline }

// check fails when the context ended or a limit of the whole file is reached.
// The end of the caller's context is returned as such: the caller knows why.
func (b *Budget) check(ctx context.Context) error {
	if b.stop != nil {
		return b.stop
	}
	if time.Now().After(b.deadline) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		b.stop = Fail(threat.ReasonLimitTime, "inspection took longer than %s", b.limits.Time)
		return b.stop
	}
	return ctx.Err()
}

// addMember counts a member.
func (b *Budget) addMember(ctx context.Context) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	if b.members >= b.limits.Members {
		b.stop = Fail(threat.ReasonLimitMembers, "more than %d members", b.limits.Members)
		return b.stop
	}
	b.members++
	return nil
}

// credit counts n bytes that were not compressed, such as the holes of a sparse
// file: they are limited by the total, but say nothing about a ratio.
func (b *Budget) credit(n int64) { b.packed += n }

// spend counts n unpacked bytes.
func (b *Budget) spend(n int64) *Failure {
	b.unpacked += n
	l := &b.limits
	switch {
	case b.unpacked > l.Total:
		b.stop = Fail(threat.ReasonLimitTotal, "more than %d bytes unpacked", l.Total)
	case b.unpacked > l.RatioAfter && b.unpacked/l.Ratio > max(b.packed, 1):
		b.stop = Fail(threat.ReasonLimitRatio, "unpacks to more than %d times its size", l.Ratio)
	default:
		return nil
	}
	return b.stop
}
