//go:build privileged

package writeback

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/driver/loopfs"
)

func TestMain(m *testing.M) { os.Exit(loopfs.Main(m)) }

func start(t *testing.T, inodes int) (*Watcher, *atomic.Int32, *atomic.Int32) {
	var changed, lost atomic.Int32
	w, err := New(Config{Inodes: inodes,
		Changed: func(uint32, uint64) { changed.Add(1) },
		Lost:    func() { lost.Add(1) },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, w.Close())
	})
	return w, &changed, &lost
}

// TestOneReportPerWatch: the first change is reported, later ones only after
// the inode is watched again, and none after Unwatch.
func TestOneReportPerWatch(t *testing.T) {
	dir := loopfs.New(t, "ext4")
	p := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(p, make([]byte, 1<<20), 0o600))
	unix.Sync()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(p, &st))
	dev := unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)
	w, changed, lost := start(t, 16)
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	touch := func(page int64) {
		_, err := f.WriteAt([]byte("x"), page*4096)
		require.NoError(t, err)
	}
	watch := func() {
		require.NoError(t, f.Sync()) // a dirty folio, which may be large, reports nothing
		require.NoError(t, w.Watch(dev, st.Ino))
	}
	reported := func(n int32) {
		t.Helper()
		require.Eventually(t, func() bool { return changed.Load() == n }, 2*time.Second, time.Millisecond)
	}

	touch(0) // not watched
	watch()
	require.NoError(t, w.Watch(dev, st.Ino), "twice")
	touch(1)
	touch(2)
	reported(1)
	watch()
	touch(3)
	reported(2)
	watch()
	require.NoError(t, w.Unwatch(dev, st.Ino))
	require.NoError(t, w.Unwatch(dev, st.Ino), "twice")
	touch(4)
	time.Sleep(50 * time.Millisecond)
	reported(2)
	require.Zero(t, lost.Load())
}

// TestFull: a full map refuses, so that the inode is not remembered.
func TestFull(t *testing.T) {
	w, _, _ := start(t, 4)
	var err error
	for i := range uint64(64) {
		if err = w.Watch(1, i); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "watching inode")
	require.NoError(t, w.Unwatch(1, 0))
}

// TestLoss: a loss that the program counted is noticed once.
func TestLoss(t *testing.T) {
	var lost atomic.Int32
	w, err := New(Config{Inodes: 16, Changed: func(uint32, uint64) {}, Lost: func() { lost.Add(1) }})
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	require.NoError(t, w.checkLoss())
	require.Zero(t, lost.Load())
	values := make([]programLoss, len(mustPerCPU(t, w)))
	values[0].Events = 3
	require.NoError(t, w.objects.Losses.Put(uint32(0), values))
	require.NoError(t, w.checkLoss())
	require.NoError(t, w.checkLoss())
	require.Equal(t, int32(1), lost.Load())
}

func mustPerCPU(t *testing.T, w *Watcher) []programLoss {
	var per []programLoss
	require.NoError(t, w.objects.Losses.Lookup(uint32(0), &per))
	return per
}
