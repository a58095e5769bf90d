package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

func write(t testing.TB, path string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
}

func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// list walks and returns "position" or "position: reason" of each item.
func list(t testing.TB, s Source, after string) (out []string) {
	t.Helper()
	require.NoError(t, s.Walk(context.Background(), after, func(it Item) error {
		defer it.Release()
		line := it.Position
		if it.Problem != nil {
			line += ": " + it.Problem.Code
		} else {
			f, k, err := it.Open(context.Background())
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.Equal(t, it.Key, k)
			require.True(t, it.Current(k))
		}
		out = append(out, line)
		return nil
	}))
	return out
}

func TestWalk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, p := range []string{"b/2", "b/1", "b-c", "a", "b/d/e/f", "b.x", "z/\xff\xfe", "z/ü", "new\nline"} {
		write(t, filepath.Join(dir, p))
	}
	require.NoError(t, unix.Mkfifo(dir+"/b/fifo", 0o600))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Symlink("..", dir+"/b/up"))
	require.NoError(t, os.Symlink("/etc/passwd", dir+"/link"))
	require.NoError(t, os.Mkdir(dir+"/empty", 0o755))
	want := []string{"a", "b/1", "b/2", "b/d/e/f", "b/fifo: not_regular", "b-c", "b.x", "new\nline", "s: not_regular", "z/ü", "z/\xff\xfe"}
	// "b" sorts before "b-c": directories are walked where their name stands.
	require.Equal(t, want, list(t, &Tree{Path: dir}, ""))
	for _, batch := range []int{1, 2, 3} {
		require.Equal(t, want, list(t, &Tree{Path: dir, batch: batch}, ""), "batches of %d", batch)
	}
	for i, p := range want {
		p, _, _ := strings.Cut(p, ": ")
		require.Equal(t, want[i+1:], append([]string{}, list(t, &Tree{Path: dir}, p)...), "after %s", p)
	}
	var n int64
	require.NoError(t, (&Tree{Path: dir}).Count(context.Background(), func(k int64) { n += k }))
	require.EqualValues(t, 9, n)
}

func TestWalkTops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/d/x")
	require.NoError(t, os.Symlink("d", dir+"/link"))
	require.NoError(t, os.Symlink("d/x", dir+"/file"))
	require.NoError(t, os.Symlink("nothing", dir+"/dangling"))
	require.NoError(t, unix.Mkfifo(dir+"/fifo", 0o600))
	for path, want := range map[string][]string{
		"/d": {"x"}, "/d/x": {"."}, "/link": {"x"}, "/file": {"."},
		"/fifo": {".: not_regular"}, "/dangling": {".: unreadable"}, "/none": {".: unreadable"},
	} {
		require.Equal(t, want, list(t, &Tree{Path: dir + path}, ""), path)
	}
	require.Empty(t, list(t, &Tree{Path: dir + "/d/x"}, "."))
	require.Equal(t, []string{".: not_regular"}, list(t, &Tree{Path: "/proc"}, ""))
	require.Equal(t, []string{".: not_regular"}, list(t, &Tree{Path: "/dev/null"}, ""))
}

func TestWalkManyFiles(t *testing.T) {
	t.Parallel()
	// In memory if possible: making so many names on a disk takes longest.
	dir, err := os.MkdirTemp("/dev/shm", "lazaret-")
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	d, err := os.Open(dir)
	require.NoError(t, err)
	defer d.Close()
	const n = 100_000
	write(t, dir+"/000000")
	for i := 1; i < n; i++ { // links: quicker to make than files
		require.NoError(t, unix.Linkat(int(d.Fd()), fmt.Sprintf("%06d", i-i%50_000), int(d.Fd()), fmt.Sprintf("%06d", i), 0), "%d", i)
		if i%50_000 == 49_999 && i+1 < n {
			write(t, fmt.Sprintf("%s/%06d", dir, i+1))
			i++
		}
	}
	next, before, peak := 0, heap(), int64(0)
	require.NoError(t, (&Tree{Path: dir}).Walk(context.Background(), "", func(it Item) error {
		defer it.Release()
		if want := fmt.Sprintf("%06d", next); it.Position != want {
			return errors.New("got " + it.Position + ", want " + want)
		}
		if next++; next%10_000 == 0 {
			peak = max(peak, heap()-before)
		}
		return nil
	}))
	require.Equal(t, n, next)
	require.Less(t, peak, int64(4<<20), "not all names at once")
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestWalkDeep(t *testing.T) { // not parallel: it counts descriptors
	before := openFDs(t)
	top, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer top.Close()
	at := int(top.Fd())
	var opened []int
	for range maxDepth + 50 { // longer than any path may be
		require.NoError(t, unix.Mkdirat(at, "d", 0o755))
		at, err = unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		opened = append(opened, at)
	}
	for _, fd := range opened {
		require.NoError(t, unix.Close(fd))
	}
	got := list(t, &Tree{Path: top.Name()}, "")
	require.Len(t, got, 1)
	require.True(t, strings.HasSuffix(got[0], "d: "+threat.ReasonLimitDepth))
	require.NoError(t, (&Tree{Path: top.Name()}).Count(context.Background(), func(int64) {}))
	require.Equal(t, before+1, openFDs(t), "no descriptor is left open")
}

func TestWalkStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a/b/1")
	write(t, dir+"/a/b/2")
	enough := errors.New("enough")
	require.ErrorIs(t, (&Tree{Path: dir}).Walk(context.Background(), "", func(it Item) error { it.Release(); return enough }), enough)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, (&Tree{Path: dir}).Walk(ctx, "", func(it Item) error { it.Release(); return nil }), context.Canceled)
	require.ErrorIs(t, (&Tree{Path: dir}).Count(ctx, func(int64) {}), context.Canceled)
}

func TestOpenIsNotFooled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		swap func(p string) error
		code string
	}{
		"symbolic link": {func(p string) error { return os.Symlink("/etc/passwd", p) }, threat.ReasonUnreadable},
		"FIFO":          {func(p string) error { return unix.Mkfifo(p, 0o600) }, threat.ReasonNotRegular},
		"directory":     {func(p string) error { return os.Mkdir(p, 0o700) }, threat.ReasonNotRegular},
		"nothing":       {func(string) error { return nil }, threat.ReasonUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir+"/x")
			require.NoError(t, (&Tree{Path: dir}).Walk(context.Background(), "", func(it Item) error {
				defer it.Release()
				held, k, err := it.Open(context.Background()) // keeps the inode's number from being used again
				require.NoError(t, err)
				defer held.Close()
				require.NoError(t, os.Remove(dir+"/x"))
				require.NoError(t, c.swap(dir+"/x"))
				_, _, err = it.Open(context.Background())
				var p *Problem
				require.ErrorAs(t, err, &p)
				require.Equal(t, c.code, p.Reason.Code)
				require.Equal(t, name == "nothing", it.Current(k))
				return nil
			}))
		})
	}
}

func TestDirectorySwappedForLink(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	write(t, outside+"/secret")
	write(t, dir+"/a")
	write(t, dir+"/b/inside")
	var got []string
	require.NoError(t, (&Tree{Path: dir}).Walk(context.Background(), "", func(it Item) error {
		defer it.Release()
		got = append(got, it.Position)
		if it.Position == "a" {
			require.NoError(t, os.RemoveAll(dir+"/b"))
			require.NoError(t, os.Symlink(outside, dir+"/b"))
		}
		return nil
	}))
	require.Equal(t, []string{"a"}, got)
}

func BenchmarkWalk(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		write(b, fmt.Sprintf("%s/d%02d/f%d", dir, i%50, i))
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		require.NoError(b, (&Tree{Path: dir}).Walk(context.Background(), "", func(it Item) error { n++; it.Release(); return nil }))
		require.Equal(b, 10_000, n)
	}
}
