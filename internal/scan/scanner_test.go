package scan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/threat"
)

// collect runs a scan and returns its lines by path, without the summary.
func collect(t *testing.T, s *Scanner, q api.ScanRequest, o Options) (map[string]api.ScanLine, api.ScanSummary) {
	t.Helper()
	lines := map[string]api.ScanLine{}
	last := ""
	sum, err := s.Run(context.Background(), q, o, func(l api.ScanLine) error {
		last = l.Kind
		if l.Kind == "object" {
			require.NotContains(t, lines, l.Path)
			lines[l.Path] = l
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, "summary", last)
	return lines, sum
}

func makeTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/a/clean", "harmless")
	write(t, dir+"/a/twin", "harmless")
	write(t, dir+"/b/bad", bad)
	write(t, dir+"/b/zip", "archive of things")
	write(t, dir+"/c/locked", "locked")
	write(t, dir+"/c/latin-\xe9\xff", "name is not UTF-8")
	require.NoError(t, unix.Mkfifo(dir+"/c/fifo", 0o600))
	require.NoError(t, os.Symlink(dir, dir+"/c/loop"))
	require.NoError(t, os.Symlink("self", dir+"/c/self"))
	time.Sleep(2 * tick)
	return dir
}

func TestScanTree(t *testing.T) {
	t.Parallel()
	dir, f, state := makeTree(t), newFake(), t.TempDir()
	for i, cached := range []int64{-1, 6} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { // the second time in a new process
			s, _ := newService(t, state, f)
			lines, sum := collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}, All: true}, Options{})
			require.Len(t, lines, 8)
			require.Equal(t, threat.Malicious, lines[dir+"/b/bad"].Verdict)
			require.Equal(t, "Test.Bad", lines[dir+"/b/bad"].Detections[0].Signature)
			require.Equal(t, threat.Clean, lines[dir+"/b/zip!/inner"].Verdict)
			require.Equal(t, threat.Partial, lines[dir+"/c/locked"].Verdict)
			require.Equal(t, threat.Clean, lines[dir+`/c/latin-\xe9\xff`].Verdict)
			require.Equal(t, threat.ReasonNotRegular, lines[dir+"/c/fifo"].Reasons[0].Code)
			require.Empty(t, lines[dir+"/c/fifo"].Verdict)
			require.EqualValues(t, 6, sum.Files)
			require.EqualValues(t, 7, sum.Objects)
			require.EqualValues(t, 4, sum.Clean)
			require.EqualValues(t, 1, sum.Malicious)
			require.EqualValues(t, 1, sum.Partial)
			require.EqualValues(t, 1, sum.Skipped)
			require.EqualValues(t, 1, sum.Epoch)
			require.Positive(t, sum.Bytes)
			if cached >= 0 {
				require.Equal(t, cached, sum.Cached)
			}
		})
	}
	require.EqualValues(t, 5, f.calls.Load(), "twins and the second scan cost nothing")
	s, _ := newService(t, state, f)
	lines, _ := collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}}, Options{})
	require.Len(t, lines, 2, "without all, only what is not clean")
}

func TestScanOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	for i := range 300 {
		p := fmt.Sprintf("%s/%03d", dir, i)
		write(t, p, p)
		want = append(want, p)
	}
	f := newFake()
	f.before = func(_ context.Context, content []byte) error {
		time.Sleep(time.Duration(len(content)+int(content[len(content)-1])%7) * 10 * time.Microsecond)
		return nil
	}
	s, _ := newService(t, t.TempDir(), f)
	var got []string
	_, err := newScanner(s).Run(context.Background(), api.ScanRequest{Paths: []string{dir}, All: true}, Options{}, func(l api.ScanLine) error {
		if l.Kind == "object" {
			got = append(got, l.Path)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestScanResume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 50 {
		write(t, fmt.Sprintf("%s/d%d/f%02d", dir, i%3, i), fmt.Sprint(i))
	}
	q := api.ScanRequest{Paths: []string{dir, dir + "/d1"}, All: true}
	s, _ := newService(t, t.TempDir(), newFake())
	full, sumFull := []string(nil), api.ScanSummary{}
	sumFull, err := newScanner(s).Run(context.Background(), q, Options{}, func(l api.ScanLine) error {
		full = append(full, l.Path)
		return nil
	})
	require.NoError(t, err)
	enough := errors.New("enough")
	for _, stop := range []int{1, 7, 33, 49, 50, 51, 60} {
		var got []string
		var o Options
		n := 0
		sink := func(l api.ScanLine) error { got = append(got, l.Path); return nil }
		first := o
		first.Done = func(c Cursor, sum *api.ScanSummary) error {
			o.Resume, o.Base = c, *sum
			if n++; n == stop {
				return enough
			}
			return nil
		}
		_, err := newScanner(s).Run(context.Background(), q, first, sink)
		require.ErrorIs(t, err, enough)
		require.Len(t, got, stop)
		sum, err := newScanner(s).Run(context.Background(), q, o, sink)
		require.NoError(t, err)
		require.Equal(t, full, got, "stopped after %d", stop)
		require.Equal(t, sumFull.Files, sum.Files)
		require.Equal(t, sumFull.Clean, sum.Clean)
	}
}

func TestScanFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		before  func(path string, n int) error // during the n-th inspection
		verdict threat.Verdict
		reason  string
	}{
		{"replaced every time", func(p string, n int) error {
			if err := os.WriteFile(p+".new", []byte(fmt.Sprint("harmless", n)), 0o644); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, threat.Partial, threat.ReasonChanged},
		{"engine fails", func(string, int) error { return errors.New("the worker could not be started") }, threat.Error, threat.ReasonEngineUnavailable},
		{"directory removed and made anew", func(p string, _ int) error {
			if err := os.RemoveAll(filepath.Dir(p)); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Dir(p), 0o755)
		}, threat.Error, threat.ReasonUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			s, _ := newService(t, t.TempDir(), f)
			dir := t.TempDir()
			path := filepath.Join(dir, "sub", "x")
			write(t, path, "harmless")
			time.Sleep(2 * tick)
			n := 0
			f.before = func(context.Context, []byte) error { n++; return c.before(path, n) }
			lines, sum := collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}}, Options{})
			require.Equal(t, c.verdict, lines[path].Verdict, "%+v", lines)
			require.Equal(t, c.reason, lines[path].Reasons[len(lines[path].Reasons)-1].Code)
			require.NotEmpty(t, lines[path].Reasons[0].Text)
			require.Zero(t, sum.Clean)
		})
	}
}

func TestScanChangedOnceIsInspectedAgain(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	path := filepath.Join(t.TempDir(), "log")
	write(t, path, "first line")
	f.before = func(_ context.Context, content []byte) error {
		if bytes.HasPrefix(content, []byte("first")) {
			return os.WriteFile(path, []byte(bad), 0o644)
		}
		return nil
	}
	lines, _ := collect(t, newScanner(s), api.ScanRequest{Paths: []string{path}}, Options{})
	require.Equal(t, threat.Malicious, lines[path].Verdict)
	require.Empty(t, lines[path].Reasons)
}

func TestScanCancel(t *testing.T) {
	t.Parallel()
	f := newFake()
	ctx, cancel := context.WithCancel(context.Background())
	f.before = func(ctx context.Context, _ []byte) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	s, _ := newService(t, t.TempDir(), f)
	dir := t.TempDir()
	for i := range 500 {
		write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
	n := 0
	sum, err := newScanner(s).Run(ctx, api.ScanRequest{Paths: []string{dir}, All: true}, Options{Progress: time.Millisecond}, func(l api.ScanLine) error {
		if l.Kind == "object" {
			n++
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, n, sum.Files, "the summary counts what was handed out")
}

func TestScanVanishingTree(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	dir := t.TempDir()
	for i := range 200 {
		write(t, fmt.Sprintf("%s/tree/%03d/x", dir, i), fmt.Sprint(i))
	}
	f.before = func(_ context.Context, content []byte) error {
		if string(content) == "20" {
			return os.RemoveAll(dir + "/tree")
		}
		return nil
	}
	lines, sum := collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}, All: true}, Options{})
	require.Less(t, sum.Clean, int64(200))
	for _, l := range lines {
		if l.Verdict != threat.Clean {
			require.Equal(t, threat.Error, l.Verdict)
			require.Equal(t, threat.ReasonUnreadable, l.Reasons[0].Code)
		}
	}
}

func TestScanFoundGetsTheFile(t *testing.T) {
	t.Parallel()
	dir, f := makeTree(t), newFake()
	s, _ := newService(t, t.TempDir(), f)
	for range 2 { // also when the verdict comes from the cache
		var hits []Hit
		o := Options{Found: func(_ context.Context, h Hit) error {
			content := make([]byte, len(bad))
			if _, err := h.File.ReadAt(content, 0); err != nil {
				return err
			}
			require.Equal(t, bad, string(content))
			hits = append(hits, h)
			return nil
		}}
		collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}}, o)
		require.Len(t, hits, 1)
		require.Equal(t, "host", hits[0].Location.Workload)
		require.Equal(t, dir+"/b/bad", hits[0].Location.Path)
		require.Equal(t, threat.High, hits[0].Report.Severity())
	}
}

func TestScanProgress(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.before = func(context.Context, []byte) error { time.Sleep(3 * time.Millisecond); return nil }
	s, _ := newService(t, t.TempDir(), f)
	s.countAfter = 0
	dir := t.TempDir()
	for i := range 60 {
		write(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprint(i))
	}
	var last *api.ScanSummary
	_, err := newScanner(s).Run(context.Background(), api.ScanRequest{Paths: []string{dir}}, Options{Progress: 5 * time.Millisecond}, func(l api.ScanLine) error {
		if l.Kind == "progress" {
			last = l.Summary
		}
		return nil
	})
	require.NoError(t, err)
	require.NotNil(t, last)
	require.EqualValues(t, 60, last.Total)
	require.Positive(t, last.Elapsed)
}

type fakeContainers struct{ pid int }

func (c fakeContainers) Root(_ context.Context, name string) (int, threat.Workload, error) {
	if name != "web" {
		return 0, threat.Workload{}, errors.New("it is not running")
	}
	return c.pid, threat.Workload{ID: "container/1", Name: "web", Image: "example/web:1"}, nil
}

type fakeImages struct {
	layers []target.Layer
	done   int
}

func (m *fakeImages) Layers(context.Context, string) ([]target.Layer, func() error, error) {
	return m.layers, func() error { m.done++; return nil }, nil
}

func TestScanContainer(t *testing.T) {
	t.Parallel()
	root, proc := makeTree(t), t.TempDir()
	require.NoError(t, os.MkdirAll(proc+"/42", 0o755))
	require.NoError(t, os.Symlink(root, proc+"/42/root"))
	s, _ := newService(t, t.TempDir(), newFake())
	scanner := &Scanner{Service: s, Targets: &target.Resolver{Containers: fakeContainers{42}, Proc: proc}}
	for range 2 {
		lines, _ := collect(t, scanner, api.ScanRequest{Container: "web"}, Options{})
		l := lines["/b/bad"]
		require.Equal(t, threat.Malicious, l.Verdict)
		require.Equal(t, "container/1", l.Workload)
		require.Equal(t, "example/web:1", l.Image)
		places, err := s.Seen(context.Background(), l.SHA256)
		require.NoError(t, err)
		require.Equal(t, []threat.Location{{Workload: "container/1", Path: "/b/bad", Image: "example/web:1"}}, places)
	}
	_, err := scanner.Run(context.Background(), api.ScanRequest{Container: "db"}, Options{}, nil)
	require.ErrorContains(t, err, `finding container "db": it is not running`)
}

func TestScanImageLayerOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	blob := filepath.Join(t.TempDir(), "blob")
	write(t, blob, "archive of a layer")
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("archive of a layer")))
	layer := target.Layer{Digest: digest, Size: 18, Open: func(context.Context) (*os.File, error) { return os.Open(blob) }}
	images := &fakeImages{layers: []target.Layer{layer}}
	scanner := &Scanner{Service: s, Targets: &target.Resolver{Images: images}}
	for range 2 {
		lines, sum := collect(t, scanner, api.ScanRequest{Image: "app.tar", All: true}, Options{})
		require.Equal(t, digest, lines["app.tar!/"+digest+"!/inner"].Layer)
		require.EqualValues(t, 1, sum.Files)
	}
	require.EqualValues(t, 1, f.calls.Load())
	require.Equal(t, 2, images.done)
	images.layers[0].Digest = "sha256:" + strings.Repeat("00", 31) + "01"
	lines, _ := collect(t, scanner, api.ScanRequest{Image: "app.tar"}, Options{})
	l := lines["app.tar!/"+images.layers[0].Digest]
	require.Equal(t, threat.Partial, l.Verdict)
	require.Equal(t, threat.ReasonDamaged, l.Reasons[0].Code)
}

func TestScanStdin(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, t.TempDir(), newFake())
	scanner := &Scanner{Service: s, Targets: &target.Resolver{Stdin: strings.NewReader("xx " + bad), Temp: t.TempDir()}}
	lines, _ := collect(t, scanner, api.ScanRequest{Paths: []string{"-"}}, Options{})
	require.Equal(t, threat.Malicious, lines["-"].Verdict)
}

func TestScanRefusals(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, t.TempDir(), newFake())
	for want, q := range map[string]api.ScanRequest{
		"names no target":             {},
		"unknown priority":            {Paths: []string{"/x"}, Priority: "on-access"},
		"no container runtime":        {Container: "x"},
		"images cannot be opened":     {Image: "x"},
		"works only without the daem": {Paths: []string{"-"}},
	} {
		_, err := newScanner(s).Run(context.Background(), q, Options{}, nil)
		require.ErrorContains(t, err, want)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	lines, sum := collect(t, newScanner(s), api.ScanRequest{Paths: []string{missing}}, Options{})
	require.Equal(t, "There is no such file.", lines[missing].Reasons[0].Text)
	require.EqualValues(t, 1, sum.Errors)
}
