//go:build privileged

package fanotify

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/driver/loopfs"
	"github.com/lazaret/lazaret/internal/event"
)

// cost is the least time of one open and close among many batches by another
// process; the least, because other work on the machine only adds.
func cost(t testing.TB, a *loopfs.Actor, path string) time.Duration {
	var all []time.Duration
	for range 30 {
		start := time.Now()
		require.Equal(t, "ok", a.Do("opens:1000", path))
		all = append(all, time.Since(start)/1000)
	}
	return slices.Min(all)
}

// TestRememberedCost: opening a remembered file costs at most 1.2 times what it
// costs without protection.
func TestRememberedCost(t *testing.T) {
	r := setup(t, "ext4", true)
	p := r.put(t, "file", good)
	r.remembered(t, p)
	marked := cost(t, r.actor, p)
	other := filepath.Join(loopfs.New(t, "ext4"), "file")
	require.NoError(t, os.WriteFile(other, good, 0o755))
	bare := cost(t, r.actor, other)
	marked = min(marked, cost(t, r.actor, p)) // around the other, for noise
	ratio := float64(marked) / float64(bare)
	t.Logf("open+close: unprotected %v, remembered %v, ratio %.2f", bare, marked, ratio)
	require.LessOrEqual(t, ratio, 1.2)
}

// TestEventCost publishes what an open costs that the reader, or a handler,
// answers.
func TestEventCost(t *testing.T) {
	known := setup(t, "ext4", false, func(c *Config, _ *GroupConfig, _ *inspector) {
		c.Clean = func(event.FileKey) bool { return true }
		c.Settle = time.Hour // never remembered
	})
	t.Logf("open+close, known clean: %v", cost(t, known.actor, known.put(t, "file", good)))
	asked := setup(t, "ext4", false, withAccess(func(context.Context, *event.File) Answer { return Answer{Allow: true} }))
	t.Logf("open+close, handler: %v", cost(t, asked.actor, asked.put(t, "file", good)))
}
