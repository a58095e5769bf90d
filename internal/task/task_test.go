package task

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFirstErrorStopsAll(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	stopped := false
	err := Run(context.Background(),
		func(context.Context) error { return boom },
		func(ctx context.Context) error { <-ctx.Done(); stopped = true; return ctx.Err() },
		func(context.Context) error { return nil },
	)
	require.ErrorIs(t, err, boom)
	require.True(t, stopped)
}

func TestPanicBecomesError(t *testing.T) {
	t.Parallel()
	err := Run(context.Background(), func(context.Context) error { panic("ouch") })
	require.ErrorContains(t, err, "ouch")
}

func TestCancelIsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, Run(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }))
}
