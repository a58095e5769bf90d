//go:build privileged

package fanotify

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/driver/loopfs"
	"github.com/lazaret/lazaret/internal/event"
)

func withAccess(f func(context.Context, *event.File) Answer) rigOption {
	return func(_ *Config, _ *GroupConfig, i *inspector) { i.access = f }
}

func withMode(closed bool, deadline time.Duration) rigOption {
	return func(c *Config, _ *GroupConfig, _ *inspector) { c.FailClosed, c.Deadline = closed, deadline }
}

var modes = map[bool]string{false: "ok", true: "EPERM"}

func TestPanicIsAnswered(t *testing.T) {
	for closed, want := range modes {
		r := setup(t, "ext4", false, withMode(closed, time.Second), withAccess(func(context.Context, *event.File) Answer { panic("broken") }))
		require.Equal(t, want, r.actor.Do("open", r.put(t, "f", good)))
		require.Equal(t, uint64(1), r.driver.Stats().Panics)
		require.Eventually(t, func() bool { return hasCondition(r, ConditionPanics) }, 3*time.Second, 10*time.Millisecond)
	}
}

// TestDeadline: a handler that hangs is answered for, by the fail mode, also
// when it holds every slot for ever.
func TestDeadline(t *testing.T) {
	for closed, want := range modes {
		release := make(chan struct{})
		r := setup(t, "ext4", false, withMode(closed, 200*time.Millisecond),
			func(c *Config, _ *GroupConfig, _ *inspector) { c.Inflight, c.Handlers = 2, 2 },
			withAccess(func(context.Context, *event.File) Answer { <-release; return Answer{} }))
		t.Cleanup(func() { close(release) })
		p := r.put(t, "f", good)
		for i := range 6 {
			start := time.Now()
			require.Equal(t, want, r.actor.Do("open", p))
			if i < 2 {
				require.InDelta(t, 200, time.Since(start).Milliseconds(), 150)
			} else {
				require.Less(t, time.Since(start), 150*time.Millisecond, "no longer waits for a place")
			}
		}
		s := r.driver.Stats()
		require.Equal(t, uint64(2), s.Timeouts)
		require.Equal(t, uint64(4), s.Saturated)
		require.Eventually(t, func() bool { return hasCondition(r, ConditionTimeouts) }, 3*time.Second, 10*time.Millisecond)
		r.driver.SetFailClosed(!closed)
		require.Equal(t, modes[!closed], r.actor.Do("open", p), "the mode can be changed")
	}
}

func TestShutdownAnswers(t *testing.T) {
	entered := make(chan struct{}, 1)
	r := setup(t, "ext4", false, withMode(true, 10*time.Second), withAccess(func(ctx context.Context, _ *event.File) Answer {
		entered <- struct{}{}
		<-ctx.Done()
		return Answer{Allow: true}
	}))
	p := r.put(t, "f", good)
	r.actor.Start("open", p)
	<-entered
	start := time.Now()
	r.stop()
	require.Equal(t, "EPERM", r.actor.Wait())
	require.Less(t, time.Since(start), 2*time.Second)
}

// TestOwnOpensUnderPressure: while every turn is taken by handlers that open
// files themselves, those opens are still answered at once.
func TestOwnOpensUnderPressure(t *testing.T) {
	var ownPath atomic.Pointer[string]
	r := setup(t, "ext4", false, withMode(false, time.Second),
		func(c *Config, _ *GroupConfig, _ *inspector) { c.Inflight, c.Handlers = 32, 2 },
		withAccess(func(context.Context, *event.File) Answer {
			f, err := os.Open(*ownPath.Load())
			if err == nil {
				_ = f.Close()
			}
			return Answer{Allow: err == nil}
		}))
	own := r.put(t, "own", good)
	ownPath.Store(&own)
	p := r.put(t, "f", good)
	var wg sync.WaitGroup
	for range 8 {
		a := loopfs.NewActor(t)
		wg.Go(func() {
			if got := a.Do("opens:200", p); got != "ok" {
				t.Errorf("opens: %s", got)
			}
		})
	}
	wg.Wait()
	require.Zero(t, r.driver.Stats().Saturated+r.driver.Stats().Timeouts)
	require.Positive(t, r.driver.Stats().Own)
}

// TestSpecialFiles: FIFOs, sockets and devices are neither read nor held up.
func TestSpecialFiles(t *testing.T) {
	r := setup(t, "ext4", false)
	fifo, dev := filepath.Join(r.dir, "fifo"), filepath.Join(r.dir, "null")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	require.NoError(t, unix.Mknod(dev, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	l, err := net.Listen("unix", filepath.Join(r.dir, "socket"))
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	require.Equal(t, "ok", r.actor.Do("open", fifo))
	require.Equal(t, "ok", r.actor.Do("open", dev))
	require.Equal(t, "ENXIO", r.actor.Do("open", filepath.Join(r.dir, "socket")), "the kernel's own answer")
	require.Equal(t, "ok", r.actor.Do("open", r.put(t, "empty", nil)))
	require.Equal(t, "ok", r.actor.Do("open", r.dir))
	require.Zero(t, r.seen("fifo")+r.seen("null")+r.seen("socket")+r.seen("empty"))
}

// TestWrites: closed writes are told once per change, coalesced when the
// handler is slow, and counted as lost when the queue is full.
func TestWrites(t *testing.T) {
	gate := make(chan struct{})
	r := setup(t, "ext4", false, func(c *Config, _ *GroupConfig, i *inspector) {
		c.Writes = 8
		i.onWritten = func(*event.File) { <-gate }
	})
	for i := range 40 {
		require.Equal(t, "ok", r.actor.Do("write:a", filepath.Join(r.dir, "w"+strconv.Itoa(i))))
	}
	require.Eventually(t, func() bool { return r.driver.Stats().WritesLost > 0 }, 5*time.Second, time.Millisecond)
	close(gate)
	require.Eventually(t, func() bool {
		s := r.driver.Stats()
		r.mu.Lock()
		defer r.mu.Unlock()
		return uint64(len(r.written))+s.WritesLost+s.Coalesced == 40 && r.overflows.Load() > 0
	}, 5*time.Second, time.Millisecond, "every write is told or counted")
	require.Eventually(t, func() bool { return hasCondition(r, ConditionLost) }, 3*time.Second, 10*time.Millisecond)
}

// TestOverflow: the kernel's bounded queue overflows while nobody reads.
func TestOverflow(t *testing.T) {
	const limit = "/proc/sys/fs/fanotify/max_queued_events"
	old, err := os.ReadFile(limit)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(limit, []byte("8"), 0o644))
	t.Cleanup(func() { require.NoError(t, os.WriteFile(limit, old, 0o644)) })

	block, entered := make(chan struct{}), make(chan struct{}, 1)
	r := setup(t, "ext4", false, withMode(false, time.Second), func(c *Config, g *GroupConfig, i *inspector) {
		g.BoundedQueue = true
		c.Clean = func(event.FileKey) bool { // holds up the reader
			entered <- struct{}{}
			<-block
			return true
		}
	})
	p := r.put(t, "f", good)
	files := make([]*os.File, 40)
	for i := range files {
		files[i], err = os.Create(filepath.Join(r.dir, "n"+strconv.Itoa(i)))
		require.NoError(t, err)
	}
	r.actor.Start("open", p)
	<-entered
	for _, f := range files { // closing waits for nobody
		require.NoError(t, f.Close())
	}
	close(block)
	require.Equal(t, "ok", r.actor.Wait())
	require.Eventually(t, func() bool { return r.driver.Stats().Overflows > 0 && r.overflows.Load() > 0 }, 5*time.Second, time.Millisecond)
}

// TestDescriptorsExhausted: when no descriptor is left the kernel denies the
// access; it is counted, nothing hangs, and it passes.
func TestDescriptorsExhausted(t *testing.T) {
	r := setup(t, "ext4", false)
	p := r.put(t, "f", good)
	var lim unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
	t.Cleanup(func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)) })
	probe, err := os.Open("/dev/null")
	require.NoError(t, err)
	require.NoError(t, probe.Close())
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: lim.Max}))
	require.Equal(t, "EPERM", r.actor.Do("open", p))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &lim))
	require.Equal(t, "ok", r.actor.Do("open", p))
	require.Positive(t, r.driver.Stats().FDErrors)
	require.Eventually(t, func() bool { return hasCondition(r, ConditionFDErrors) }, 3*time.Second, 10*time.Millisecond)
}

// TestUnprotect: protection follows the calls, and a vanished mount is no error.
func TestUnprotect(t *testing.T) {
	r := setup(t, "ext4", false)
	p := r.put(t, "bad", evil)
	require.Equal(t, []string{r.dir}, r.driver.Protected())
	require.NoError(t, r.driver.Protect(r.dir), "twice")
	require.Len(t, r.driver.Protected(), 1)
	require.Equal(t, "EPERM", r.actor.Do("open", p))
	require.NoError(t, r.driver.Unprotect(r.dir))
	require.Empty(t, r.driver.Protected())
	require.Equal(t, "ok", r.actor.Do("open", p))
	require.NoError(t, r.driver.Unprotect(filepath.Join(r.dir, "gone")))
	require.Error(t, r.driver.Protect(filepath.Join(r.dir, "gone")))
}

// TestOverlayMode: an overlay itself is protected, as kernels before 6.5 need.
func TestOverlayMode(t *testing.T) {
	r := setup(t, "ext4", false, func(c *Config, _ *GroupConfig, _ *inspector) { c.Overlay = Overlay })
	require.NoError(t, r.driver.Unprotect(r.dir))
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "lower"), 0o755))
	r.put(t, "lower/bad", evil)
	r.put(t, "lower/ok", good)
	merged, _ := loopfs.Overlay(t, filepath.Join(r.dir, "lower"))
	require.NoError(t, r.driver.Protect(merged))
	require.Equal(t, "EPERM", r.actor.Do("open", filepath.Join(merged, "bad")))
	require.Equal(t, "ok", r.actor.Do("open", filepath.Join(merged, "ok")))
	require.Equal(t, "ok", r.actor.Do("exec", filepath.Join(merged, "ok")))
}

// TestOverlayIsRefused: both marks in one group would hang the opener.
func TestOverlayIsRefused(t *testing.T) {
	r := setup(t, "ext4", false, func(c *Config, _ *GroupConfig, _ *inspector) { c.Overlay = Backing })
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "lower"), 0o755))
	merged, _ := loopfs.Overlay(t, filepath.Join(r.dir, "lower"))
	require.ErrorIs(t, r.driver.Protect(merged), ErrOverlay)
}

func TestProbe(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/mnt")
	require.NoError(t, err)
	var c Capabilities
	for range 50 { // it happens on any thread
		c, err = Probe(t.TempDir())
		require.NoError(t, err)
	}
	after, err := os.Readlink("/proc/self/ns/mnt")
	require.NoError(t, err)
	require.Equal(t, before, after, "the process has left its mount name space")
	require.True(t, c.Permission, c.Problem)
	require.NotEqual(t, Unknown, c.Overlay, c.Problem)
	t.Logf("%+v", c)
	_, err = Probe("/nonexistent")
	require.Error(t, err)
}

func hasCondition(r *rig, code string) bool {
	for _, c := range r.conditions.List() {
		if c.Code == code {
			return true
		}
	}
	return false
}
