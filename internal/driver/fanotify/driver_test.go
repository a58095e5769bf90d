package fanotify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/event"
)

// plain is a group whose descriptor is an ordinary file: answers land there.
func plain(t testing.TB) (*Group, string) {
	path := filepath.Join(t.TempDir(), "group")
	f, err := os.Create(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return &Group{fd: int(f.Fd()), file: f}, path
}

type allow struct{}

func (allow) Access(context.Context, *event.File) Answer { return Answer{Allow: true} }
func (allow) Written(context.Context, *event.File)       {}
func (allow) Overflow(context.Context)                   {}

func newTestDriver(t testing.TB, change func(*Config)) (*Driver, string) {
	g, path := plain(t)
	cfg := Config{Group: g, Handler: allow{}, Conditions: &condition.Set{}, Settle: time.Nanosecond}
	if change != nil {
		change(&cfg)
	}
	d, err := New(cfg)
	require.NoError(t, err)
	return d, path
}

// opened returns an event for a file as the kernel would hand it out.
func opened(t testing.TB, path string, pid int32) Event {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	return Event{Mask: unix.FAN_OPEN_PERM, FD: int32(fd), PID: pid, PIDFD: -1}
}

func answers(t testing.TB, path string) []bool {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var out []bool
	for ; len(b) >= responseLen; b = b[responseLen:] {
		out = append(out, b[4] == unix.FAN_ALLOW)
	}
	return out
}

func TestNewRequires(t *testing.T) {
	t.Parallel()
	_, err := New(Config{})
	require.ErrorContains(t, err, "required")
}

func TestFastPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(full, []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	d, out := newTestDriver(t, func(c *Config) {
		c.FailClosed = true
		c.Own = func(pid int) bool { return pid == 77 }
		c.Clean = func(event.FileKey) bool { return true }
	})
	ctx := t.Context()
	d.dispatch(ctx, opened(t, full, 77))
	d.dispatch(ctx, opened(t, full, int32(os.Getpid())))
	d.dispatch(ctx, opened(t, empty, 1))
	d.dispatch(ctx, opened(t, dir, 1))
	d.dispatch(ctx, opened(t, full, 1))
	require.Equal(t, []bool{true, true, true, true, true}, answers(t, out))

	gone := opened(t, full, 1)
	gone.FD = 1 << 20 // cannot be looked at: the fail mode decides
	d.dispatch(ctx, gone)
	d.dispatch(ctx, Event{Mask: unix.FAN_OPEN_PERM, FD: -24, PIDFD: -1})
	d.dispatch(ctx, Event{Mask: unix.FAN_Q_OVERFLOW, FD: -1, PIDFD: -1})
	require.Equal(t, []bool{true, true, true, true, true, false}, answers(t, out))
	s := d.Stats()
	require.Equal(t, []uint64{6, 2, 2, 1, 5, 1, 2, 1}, []uint64{s.Events, s.Own, s.Trivial, s.Known, s.Allowed, s.Denied, s.FDErrors, s.Overflows})
	d.marks.drain()
}

func TestWriteQueue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, _ := newTestDriver(t, func(c *Config) { c.Writes = 2 })
	write := func(name string) {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte("x"), 0o600))
		e := opened(t, p, 1)
		e.Mask = unix.FAN_CLOSE_WRITE
		d.dispatch(t.Context(), e)
	}
	write("a")
	write("a")
	write("b")
	write("c")
	s := d.Stats()
	require.Equal(t, []uint64{4, 1, 1}, []uint64{s.Writes, s.Coalesced, s.WritesLost})
	require.Len(t, d.lost, 1, "a rescan is asked for")
	d.writes.drain()
}

func TestTroubleIsRaisedAndCleared(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t, nil)
	tr := trouble{count: func(s Stats) uint64 { return s.Panics }}
	tr.condition.Code = "x"
	now := time.Now()
	tr.check(d, Stats{}, now)
	require.Empty(t, d.cfg.Conditions.List())
	tr.check(d, Stats{Panics: 1}, now)
	require.Len(t, d.cfg.Conditions.List(), 1)
	tr.check(d, Stats{Panics: 1}, now.Add(calm/2))
	require.Len(t, d.cfg.Conditions.List(), 1)
	tr.check(d, Stats{Panics: 1}, now.Add(calm+time.Second))
	require.Empty(t, d.cfg.Conditions.List())
}

func TestOpenForWriting(t *testing.T) {
	t.Parallel()
	p := filepath.Join(t.TempDir(), "f")
	w, err := os.Create(p)
	require.NoError(t, err)
	r, err := os.Open(p)
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	require.True(t, openForWriting(int(r.Fd())))
	require.NoError(t, w.Close())
	require.False(t, openForWriting(int(r.Fd())))
}

// TestOnOwnThread: what is done to the thread must not stay with the process.
func TestOnOwnThread(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := onOwnThread(func() error {
				if unix.Gettid() == unix.Getpid() {
					return errors.New("on the main thread")
				}
				return nil
			})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
}

func TestKernelDevice(t *testing.T) {
	t.Parallel()
	table := []byte(`21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 21 0:33 /sub /mnt rw - btrfs /dev/sdb rw,subvol=/sub
41 21 8:3 / /pmem rw - ext4 /dev/pmem0 rw,dax=always
`)
	for name, tc := range map[string]struct {
		id  uint64
		dev uint64
		ok  bool
		k   uint32
	}{
		"by id":       {40, unix.Mkdev(0, 99), true, 33},
		"by device":   {999, unix.Mkdev(8, 1), true, 8<<20 | 1},
		"dax":         {41, unix.Mkdev(8, 3), false, 0},
		"not mounted": {999, unix.Mkdev(9, 9), false, 0},
		"no id":       {0, unix.Mkdev(0, 33), true, 33},
	} {
		ok, k := kernelDevice(table, tc.id, tc.dev)
		require.Equal(t, tc.ok, ok, name)
		require.Equal(t, tc.k, k, name)
	}
}

// BenchmarkEvent is the whole path of an access to known clean content:
// dispatch, look at the file, answer, close.
func BenchmarkEvent(b *testing.B) {
	g := &Group{}
	var err error
	g.fd, err = unix.Open(os.DevNull, unix.O_WRONLY, 0)
	require.NoError(b, err)
	defer func() { _ = unix.Close(g.fd) }()
	d, err := New(Config{Group: g, Handler: allow{}, Conditions: &condition.Set{}, Settle: time.Hour,
		Clean: func(event.FileKey) bool { return true }})
	require.NoError(b, err)
	p := filepath.Join(b.TempDir(), "f")
	require.NoError(b, os.WriteFile(p, []byte("x"), 0o600))
	b.ReportAllocs()
	for b.Loop() {
		d.dispatch(b.Context(), opened(b, p, 1))
	}
}
