package scan

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// open writes a file that is old enough to be remembered and opens it.
func open(t testing.TB, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x")
	write(t, path, content)
	time.Sleep(2 * tick)
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestInspectOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, c := range []struct {
		name, content string
		verdict       threat.Verdict
		count         int
	}{
		{"clean", "harmless", threat.Clean, 1},
		{"empty", "", threat.Clean, 1},
		{"malicious", bad, threat.Malicious, 1},
		{"partial", "locked", threat.Partial, 1},
		{"archive", "archive of things", threat.Clean, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, f := t.TempDir(), newFake()
			file := open(t, c.content)
			key, err := KeyOf(file)
			require.NoError(t, err)
			check := func(s *Service, cached bool) {
				r, err := s.Inspect(ctx, Request{File: file, Priority: OnAccess})
				require.NoError(t, err)
				require.Equal(t, c.verdict, r.Verdict)
				require.Equal(t, cached, r.Cached)
				require.Len(t, r.Objects, c.count)
				require.Equal(t, c.count, r.Count)
				require.Equal(t, threat.Hash(sha256.Sum256([]byte(c.content))), r.Hash)
				require.EqualValues(t, 1, r.Epoch)
			}
			t.Run("first process", func(t *testing.T) {
				s, _ := newService(t, dir, f)
				_, ok := s.Lookup(key)
				require.False(t, ok)
				check(s, false)
				check(s, true)
				r, ok := s.Lookup(key)
				require.True(t, ok)
				require.Equal(t, c.verdict, r.Verdict)
			})
			s, _ := newService(t, dir, f) // the next process
			check(s, true)
			require.EqualValues(t, 1, f.calls.Load())
			r, ok := s.Lookup(key)
			require.True(t, ok)
			require.Equal(t, c.verdict, r.Verdict)
			if c.verdict != threat.Clean {
				require.NotEmpty(t, r.Objects)
			}
		})
	}
}

func TestNewEpochInspectsAgain(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "harmless")
	for epoch := uint64(1); epoch <= 3; epoch++ {
		f.epoch.Store(epoch)
		key, err := KeyOf(file)
		require.NoError(t, err)
		_, ok := s.Lookup(key)
		require.False(t, ok, "a verdict of another epoch must not answer")
		r, err := s.Inspect(context.Background(), Request{File: file})
		require.NoError(t, err)
		require.EqualValues(t, epoch, r.Epoch)
		require.EqualValues(t, epoch, f.calls.Load())
	}
}

func TestSameContentOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	f.before = func(ctx context.Context, _ []byte) error {
		entered <- struct{}{}
		<-proceed
		return nil
	}
	s, _ := newService(t, t.TempDir(), f)
	files := []*os.File{open(t, "same"), open(t, "same"), open(t, "same")}
	files = append(files, files[0])
	var wg sync.WaitGroup
	results := make([]Report, len(files))
	for i, file := range files {
		wg.Go(func() {
			r, err := s.Inspect(context.Background(), Request{File: file})
			if err == nil {
				results[i] = r
			}
		})
	}
	<-entered
	time.Sleep(30 * time.Millisecond) // let the others arrive
	close(proceed)
	wg.Wait()
	require.EqualValues(t, 1, f.calls.Load())
	for _, r := range results {
		require.Equal(t, threat.Clean, r.Verdict)
	}
}

func TestLeaverDoesNotStopOthers(t *testing.T) {
	t.Parallel()
	f := newFake()
	entered, proceed := make(chan struct{}, 1), make(chan struct{})
	f.before = func(ctx context.Context, _ []byte) error {
		entered <- struct{}{}
		select {
		case <-proceed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "content")
	first, leave := context.WithCancel(context.Background())
	errs := make(chan error, 2)
	go func() {
		_, err := s.Inspect(first, Request{File: file})
		errs <- err
	}()
	<-entered
	other, err := os.Open(file.Name())
	require.NoError(t, err)
	defer other.Close()
	got := make(chan error, 1)
	go func() {
		_, err := s.Inspect(context.Background(), Request{File: other, Priority: OnAccess})
		got <- err
	}()
	time.Sleep(30 * time.Millisecond)
	leave()
	require.ErrorIs(t, <-errs, context.Canceled)
	require.NoError(t, file.Close(), "the first caller's file is gone")
	close(proceed)
	require.NoError(t, <-got)
	require.EqualValues(t, 1, f.calls.Load())
}

func TestLastLeaverCancelsTheWork(t *testing.T) {
	t.Parallel()
	f := newFake()
	entered, ended := make(chan struct{}), make(chan struct{})
	f.before = func(ctx context.Context, _ []byte) error {
		close(entered)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "content")
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-entered; cancel() }()
	_, err := s.Inspect(ctx, Request{File: file})
	require.ErrorIs(t, err, context.Canceled)
	<-ended
}

func TestChangedWhileInspected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"rewritten": func(p string) error { return os.WriteFile(p, []byte("other!!!"), 0o644) },
		"truncated": func(p string) error { return os.Truncate(p, 2) },
		"grown":     func(p string) error { return os.WriteFile(p, []byte("something much longer"), 0o644) },
		"touched":   func(p string) error { return os.Chmod(p, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			s, _ := newService(t, t.TempDir(), f)
			file := open(t, "harmless")
			f.before = func(context.Context, []byte) error { return change(file.Name()) }
			r, err := s.Inspect(context.Background(), Request{File: file})
			require.NoError(t, err)
			require.Equal(t, threat.Partial, r.Verdict)
			require.True(t, r.Has(threat.ReasonChanged))
			key, err := KeyOf(file)
			require.NoError(t, err)
			_, ok := s.Lookup(key)
			require.False(t, ok, "what changed must not be remembered")
		})
	}
}

func TestTruncatedWhileHashed(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, t.TempDir(), newFake())
	file := open(t, "harmless")
	key, err := KeyOf(file)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(file.Name(), 3))
	r, err := s.Inspect(context.Background(), Request{File: file, Key: key})
	require.NoError(t, err)
	require.Equal(t, threat.Partial, r.Verdict)
	require.True(t, r.Has(threat.ReasonChanged))
}

func TestEngineErrorIsNotRemembered(t *testing.T) {
	t.Parallel()
	f := newFake()
	boom := errors.New("no worker")
	f.before = func(context.Context, []byte) error { return boom }
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "harmless")
	_, err := s.Inspect(context.Background(), Request{File: file})
	require.ErrorIs(t, err, boom)
	f.before = nil
	r, err := s.Inspect(context.Background(), Request{File: file})
	require.NoError(t, err)
	require.Equal(t, threat.Clean, r.Verdict)
}

func TestYoungFileIsKnownByContentOnly(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	path := filepath.Join(t.TempDir(), "x")
	write(t, path, "new")
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	key, err := KeyOf(file)
	require.NoError(t, err)
	for range 2 {
		r, err := s.Inspect(context.Background(), Request{File: file, Key: key})
		require.NoError(t, err)
		require.Equal(t, threat.Clean, r.Verdict)
	}
	require.EqualValues(t, 1, f.calls.Load())
}

func TestSettled(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 500)
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{0, false}, {tick / 2, false}, {2 * tick, true}, {-time.Hour, false}, {500, false}, {time.Second + 500, false}, {3*time.Second + 500, true}} {
		k := keyAt(now.Add(-c.age))
		require.Equal(t, c.want, settled(k, now), "%v", c.age)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	f, dir := newFake(), t.TempDir()
	file := open(t, "harmless")
	key, err := KeyOf(file)
	require.NoError(t, err)
	t.Run("first process", func(t *testing.T) {
		s, _ := newService(t, dir, f)
		_, err = s.Inspect(context.Background(), Request{File: file})
		require.NoError(t, err)
		_, ok := s.Lookup(key)
		require.True(t, ok)
		s.Forget(key)
		_, ok = s.Lookup(key)
		require.False(t, ok)
		_, ok = s.known(context.Background(), key, s.limits, needAll)
		require.False(t, ok, "the disk must not bring it back")
	})
	s, _ := newService(t, dir, f)
	_, ok := s.known(context.Background(), key, s.limits, needAll)
	require.False(t, ok, "nor in the next process")
}

func TestForgetDuringInspection(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "harmless")
	key, err := KeyOf(file)
	require.NoError(t, err)
	f.before = func(context.Context, []byte) error { s.Forget(key); return nil }
	_, err = s.Inspect(context.Background(), Request{File: file})
	require.NoError(t, err)
	_, ok := s.Lookup(key)
	require.False(t, ok)
}

func TestLimitsBelongToTheAnswer(t *testing.T) {
	t.Parallel()
	objects := []threat.Object{{Verdict: threat.Partial, Reasons: []threat.Reason{{Code: threat.ReasonTooLarge}}}}
	_, disk, limited := keep(objects)
	require.True(t, disk)
	require.True(t, limited)
	small := limitsSum(engine.Limits{Depth: 1}.WithDefaults())
	require.NotEqual(t, limitsSum(engine.DefaultLimits()), small)
	require.Zero(t, dependsOn(false, small))
}

func TestContentIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newService(t, t.TempDir(), newFake())
	file := open(t, "archive of things")
	for _, w := range []string{"host", "container/a", "container/a", "container/b"} {
		_, err := s.Inspect(ctx, Request{File: file, Location: threat.Location{Workload: w, Path: "/data/x"}})
		require.NoError(t, err)
	}
	h := threat.Hash(sha256.Sum256([]byte("archive of things")))
	n, err := s.Workloads(ctx, h)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	places, err := s.Seen(ctx, threat.Hash(sha256.Sum256([]byte(" of things"))))
	require.NoError(t, err)
	require.Len(t, places, 3)
	require.Equal(t, "/data/x!/inner", places[0].Path)
	places, err = s.Seen(ctx, threat.Hash{1})
	require.NoError(t, err)
	require.Empty(t, places)
}

func TestReservedWorker(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Dir: t.TempDir(), Inspector: newFake(), Epoch: func() threat.Epoch { return 1 }, Workers: 2, Reserve: 2, Conditions: &condition.Set{}, Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "reserved")
	f := newFake()
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	f.before = func(_ context.Context, content []byte) error {
		if string(content) != "urgent" {
			entered <- struct{}{}
			<-proceed
		}
		return nil
	}
	s, err := New(Config{Dir: t.TempDir(), Inspector: f, Epoch: func() threat.Epoch { return 1 }, Workers: 2, Reserve: 1, Conditions: &condition.Set{}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer s.Close()
	var wg sync.WaitGroup
	for _, content := range []string{"a", "b", "c"} {
		file := open(t, content)
		wg.Go(func() { s.Inspect(context.Background(), Request{File: file, Priority: Scheduled}) })
	}
	<-entered
	_, err = s.Inspect(context.Background(), Request{File: open(t, "urgent"), Priority: OnAccess})
	require.NoError(t, err)
	require.Empty(t, entered, "one background inspection at a time")
	close(proceed)
	wg.Wait()
}

// A huge hole behind malicious content must not hide it.
func TestHugeFileGoesToTheEngineAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, bad)
	require.NoError(t, os.Truncate(file.Name(), 1<<42))
	time.Sleep(2 * tick)
	key, err := KeyOf(file)
	require.NoError(t, err)
	r, err := s.Inspect(context.Background(), Request{File: file})
	require.NoError(t, err)
	require.Equal(t, threat.Malicious, r.Verdict)
	_, ok := s.Lookup(key)
	require.False(t, ok, "nothing is remembered without a hash")
}

func TestLargeFileTakesASlotToHash(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, t.TempDir(), newFake())
	file := open(t, "begin")
	require.NoError(t, os.Truncate(file.Name(), 2*hashFree))
	time.Sleep(2 * tick)
	for _, cached := range []bool{false, true} {
		r, err := s.Inspect(context.Background(), Request{File: file})
		require.NoError(t, err)
		require.Equal(t, threat.Clean, r.Verdict)
		require.Equal(t, cached, r.Cached)
	}
}
