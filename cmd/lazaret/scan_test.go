package main

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLockCache stands for two scans at once at the first start: one makes the
// compiled signatures, the other waits for it.
func TestLockCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := lockCache(t.Context(), dir)
	require.NoError(t, err)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = lockCache(short, dir)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	got := make(chan error, 1)
	go func() {
		unlock, err := lockCache(t.Context(), dir)
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	require.NoError(t, <-got)
	_, err = lockCache(t.Context(), "/dev/null/none")
	require.ErrorContains(t, err, "locking the cache")
}

func TestBuiltWith(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.False(t, builtWith(dir))
	require.NoError(t, markBuilt(dir))
	require.True(t, builtWith(dir))
}
