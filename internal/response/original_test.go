package response

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

func TestOnlyRegularFilesAreTaken(t *testing.T) {
	t.Parallel()
	dir := realTempDir(t)
	fifo, socket, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "s"), filepath.Join(dir, "link")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	require.NoError(t, err)
	defer l.Close()
	writeFile(t, filepath.Join(dir, "f"), "x")
	require.NoError(t, os.Symlink("f", link))
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "d")))
	for path, want := range map[string]error{
		fifo: ErrNotRegular, socket: ErrNotRegular, dir: ErrNotRegular, link: ErrNotRegular, "/dev/null": ErrNotRegular,
		filepath.Join(dir, "d", "f"): ErrSymlink,
		filepath.Join(dir, "none"):   ErrGone,
		filepath.Join(dir, "f", "x"): ErrGone,
		"":                           ErrGone,
		"relative":                   nil,
		"/":                          nil,
		dir + "/../x":                nil,
	} {
		_, err := OpenOriginal(Target{Path: path})
		require.Error(t, err, path)
		if want != nil {
			require.ErrorIs(t, err, want, path)
		}
	}
	_, err = OpenOriginal(Target{Path: filepath.Join(dir, "f"), ImageLayer: true})
	require.ErrorIs(t, err, ErrImageLayer)
	require.FileExists(t, filepath.Join(dir, "f"))
}

func TestQuarantineOfSomethingElse(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	object := hashOf(t, path)
	open := func() *Original {
		o, err := OpenOriginal(Target{Path: path})
		require.NoError(t, err)
		t.Cleanup(func() { o.Close() })
		return o
	}
	_, err := v.Quarantine(ctx, open(), Meta{Object: threat.Hash{1}})
	require.ErrorIs(t, err, ErrChanged, "the content is not what was inspected")
	_, err = v.Delete(ctx, open(), Meta{Object: threat.Hash{1}})
	require.ErrorIs(t, err, ErrChanged)

	o := open()
	require.NoError(t, os.Rename(path, path+".moved"))
	writeFile(t, path, "harmless")
	_, err = v.Quarantine(ctx, o, Meta{Object: object})
	require.ErrorIs(t, err, ErrReplaced)
	require.FileExists(t, path)
	require.FileExists(t, path+".moved")

	o = open()
	require.NoError(t, os.Remove(path))
	_, err = v.Quarantine(ctx, o, Meta{})
	require.ErrorIs(t, err, ErrGone)
	items, _, err := v.List(ctx, "", 10)
	require.NoError(t, err)
	require.Empty(t, items)
	require.Empty(t, blobs(t, v))
	requireNoHidden(t, dir)
}

// A write between copying and removing must not be lost; a mere touch must not
// save the file.
func TestChangeWhileQuarantining(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		at     string
		change func(path string) error
		want   error
	}{
		"write":  {"quarantine: removing", func(p string) error { return os.WriteFile(p, []byte("new"), 0o600) }, ErrChanged},
		"append": {"store: blob created", func(p string) error { return os.WriteFile(p, []byte("bad and more"), 0o600) }, ErrChanged},
		"touch":  {"quarantine: removing", func(p string) error { return os.Chtimes(p, time.Now(), time.Now()) }, nil},
		"chmod":  {"quarantine: removing", func(p string) error { return os.Chmod(p, 0o777) }, nil},
		"replace before rename": {"remove: checked", func(p string) error {
			return errors.Join(os.Rename(p, p+".moved"), os.WriteFile(p, []byte("harmless"), 0o600))
		}, ErrReplaced},
		"gone before rename": {"remove: checked", os.Remove, ErrGone},
		"symlink before rename": {"remove: checked", func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p))
		}, ErrReplaced},
		"hidden name moved on": {"remove: renamed", func(p string) error {
			hidden, err := filepath.Glob(filepath.Join(filepath.Dir(p), ".lazaret-*"))
			return errors.Join(err, os.Rename(hidden[0], p))
		}, ErrGone},
		"name taken again": {"remove: renamed", func(p string) error { return os.WriteFile(p, []byte("harmless"), 0o600) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, dir := newVault(t, realTempDir(t)), realTempDir(t)
			path := filepath.Join(dir, "x")
			writeFile(t, path, "bad")
			var once sync.Once
			v.step = func(s string) {
				if s == tt.at {
					once.Do(func() { require.NoError(t, tt.change(path)) })
				}
			}
			_, err := quarantine(v, path, hashOf(t, path))
			items, _, lerr := v.List(context.Background(), "", 10)
			require.NoError(t, lerr)
			if tt.want == nil {
				require.NoError(t, err)
				require.Len(t, items, 1)
			} else {
				require.ErrorIs(t, err, tt.want)
				require.Empty(t, items)
				require.Empty(t, blobs(t, v))
			}
			requireNoHidden(t, dir)
			if tt.want == ErrReplaced {
				_, err := os.Lstat(path)
				require.NoError(t, err, "what took the place is still there")
			}
		})
	}
}

// An attacker swaps the file, and directories above it, with links to files
// that must not be touched, as fast as possible.
func TestSymlinkRaces(t *testing.T) {
	t.Parallel()
	v, dir, safe := newVault(t, realTempDir(t)), realTempDir(t), realTempDir(t)
	precious := filepath.Join(safe, "x")
	writeFile(t, precious, "precious")
	inner := filepath.Join(dir, "inner")
	path := filepath.Join(inner, "x")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	attack := func(moves ...func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				for _, m := range moves {
					m(i)
				}
			}
		})
	}
	// The attacker holds his directory, so that he himself does not write through
	// his links. Errors do not matter: he tries.
	require.NoError(t, os.Mkdir(inner, 0o700))
	own, err := os.OpenRoot(inner)
	require.NoError(t, err)
	defer own.Close()
	handle, err := own.Open(".")
	require.NoError(t, err)
	defer handle.Close()
	attack(
		func(i int) {
			if f, err := own.OpenFile("x", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
				f.WriteString("bad " + strconv.Itoa(i))
				f.Close()
			}
			time.Sleep(time.Duration(i%4) * time.Millisecond) // let it be found
		},
		func(int) { own.Remove("x"); unix.Symlinkat(precious, int(handle.Fd()), "x") },
		func(int) { own.Remove("x"); unix.Linkat(unix.AT_FDCWD, precious, int(handle.Fd()), "x", 0) },
		func(int) { own.Remove("x") },
	)
	attack(
		func(int) { os.Rename(inner, inner+".away") },
		func(int) { os.Symlink(safe, inner) },
		func(int) { os.Remove(inner); os.Rename(inner+".away", inner) },
	)
	object := hashOf(t, precious)
	taken := 0
	for start := time.Now(); time.Since(start) < time.Second || (taken == 0 && time.Since(start) < 20*time.Second); {
		o, err := OpenOriginal(Target{Path: path})
		if err != nil {
			continue
		}
		h, _, err := hashFile(context.Background(), o.File())
		if err == nil && h != object { // the attacker's own link is his file
			if _, err := v.Quarantine(context.Background(), o, Meta{Object: h}); err == nil {
				taken++
			}
		}
		o.Close()
		b, err := os.ReadFile(precious)
		require.NoError(t, err)
		require.Equal(t, "precious", string(b))
	}
	close(stop)
	wg.Wait()
	require.Positive(t, taken, "and the attack did not keep us from working")
	items, _, err := v.List(context.Background(), "", 1000)
	require.NoError(t, err)
	for _, item := range items[:min(len(items), 1000)] {
		require.NotEqual(t, object, item.Object)
	}
	entries, err := os.ReadDir(safe)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// Restoring into a directory that is swapped with a link never writes through
// the link.
func TestRestoreRace(t *testing.T) {
	t.Parallel()
	v, dir, safe := newVault(t, realTempDir(t)), realTempDir(t), realTempDir(t)
	inner := filepath.Join(dir, "inner")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	require.NoError(t, os.Mkdir(inner, 0o700))
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				os.Rename(inner, inner+".away")
				os.Symlink(safe, inner)
				os.Remove(inner)
				os.Rename(inner+".away", inner)
			}
		}
	})
	restored := 0
	for i := range 60 {
		path := filepath.Join(dir, "f")
		writeFile(t, path, strconv.Itoa(i))
		item, err := quarantine(v, path, threat.Hash{})
		require.NoError(t, err)
		if _, err := restore(v, item.ID, filepath.Join(inner, "f")); err == nil {
			restored++
		} else {
			require.Equal(t, strconv.Itoa(i), readItem(t, v, item.ID))
		}
	}
	close(stop)
	wg.Wait()
	require.Positive(t, restored)
	entries, err := os.ReadDir(safe)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestHardLinksAreCounted(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	require.NoError(t, os.Link(path, path+"2"))
	require.NoError(t, os.Link(path, path+"3"))
	item, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	require.Equal(t, uint64(2), item.Links)
	require.FileExists(t, path+"2")
}

// Findings carry paths made for people; decisions on them find the file.
func TestPrintedPaths(t *testing.T) {
	t.Parallel()
	dir := realTempDir(t)
	raw := filepath.Join(dir, "a\xff\xfe\\x41")
	writeFile(t, raw, "bad")
	o, err := OpenOriginal(Target{Path: threat.Printable(raw)})
	require.NoError(t, err)
	require.Equal(t, raw, o.target.Path)
	require.NoError(t, o.Close())
	// A file that really has the printed name comes first.
	writeFile(t, threat.Printable(raw), "other")
	o, err = OpenOriginal(Target{Path: threat.Printable(raw)})
	require.NoError(t, err)
	require.Equal(t, threat.Printable(raw), o.target.Path)
	require.NoError(t, o.Close())
	_, err = OpenOriginal(Target{Path: filepath.Join(dir, `none\xff`)})
	require.ErrorIs(t, err, ErrGone)
	require.ErrorContains(t, err, `none\\xff`)
}

func TestTargetThroughAProcess(t *testing.T) {
	t.Parallel()
	dir := realTempDir(t)
	path := filepath.Join(dir, "f")
	writeFile(t, path, "x")
	start, err := startTime(os.Getpid())
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		target Target
		want   error
	}{
		"right":              {Target{PID: os.Getpid(), Start: start, Path: path}, nil},
		"any start":          {Target{PID: os.Getpid(), Path: path}, nil},
		"other start":        {Target{PID: os.Getpid(), Start: start + 1, Path: path}, ErrGone},
		"other, host path":   {Target{PID: os.Getpid(), Start: start + 1, Path: "/nowhere", HostPath: path}, nil},
		"gone, host path":    {Target{PID: 1 << 30, Path: "/nowhere", HostPath: path}, nil},
		"gone":               {Target{PID: 1 << 30, Path: path}, ErrGone},
		"alive, no fallback": {Target{PID: os.Getpid(), Start: start, Path: "/nowhere", HostPath: path}, ErrGone},
	} {
		o, err := OpenOriginal(tt.target)
		if tt.want != nil {
			require.ErrorIs(t, err, tt.want, name)
			continue
		}
		require.NoError(t, err, name)
		require.NoError(t, o.Close())
	}
}
