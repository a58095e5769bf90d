// Package task runs the long-lived parts of a program: the first error stops
// all of them and is returned as the cause; a panic becomes an error.
package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// Run starts every function with a context that ends when ctx ends or when one
// of them returns an error, waits for all, and returns the first error. A
// function that returns nil leaves the others running. It returns nil when
// ctx was cancelled and everybody stopped cleanly.
func Run(ctx context.Context, funcs ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, f := range funcs {
		wg.Go(func() {
			err := protect(ctx, f)
			if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
				return
			}
			once.Do(func() { first = err; cancel(err) })
		})
	}
	wg.Wait()
	return first
}

func protect(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f(ctx)
}
