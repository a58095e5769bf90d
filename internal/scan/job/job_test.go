package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
)

// fakeRunner "scans" files 0 to n-1; every tenth is malicious.
type fakeRunner struct {
	n     int
	calls atomic.Int64
	// at, if set, is called before each file.
	at func(ctx context.Context, i int) error

	mu   sync.Mutex
	seen []int
}

func (f *fakeRunner) Run(ctx context.Context, q api.ScanRequest, o scan.Options, sink func(api.ScanLine) error) (api.ScanSummary, error) {
	f.calls.Add(1)
	sum := o.Base
	i := 0
	if o.Resume.Position != nil {
		if _, err := fmt.Sscan(string(o.Resume.Position), &i); err != nil {
			return sum, err
		}
		i++
	}
	for ; i < f.n; i++ {
		if f.at != nil {
			if err := f.at(ctx, i); err != nil {
				return sum, err
			}
		}
		if err := context.Cause(ctx); err != nil {
			return sum, err
		}
		f.mu.Lock()
		f.seen = append(f.seen, i)
		f.mu.Unlock()
		sum.Files++
		if i%10 == 0 {
			sum.Malicious++
			if err := sink(api.ScanLine{Kind: "object", Path: fmt.Sprint(i), Verdict: threat.Malicious}); err != nil {
				return sum, err
			}
		}
		if err := o.Done(scan.Cursor{Position: fmt.Append(nil, i)}, &sum); err != nil {
			return sum, err
		}
	}
	return sum, sink(api.ScanLine{Kind: "summary", Summary: &sum})
}

func open(t *testing.T, cfg Config) *Jobs {
	t.Helper()
	cfg.Conditions, cfg.Logger, cfg.Node = &condition.Set{}, slog.New(slog.DiscardHandler), "n1"
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	j, err := Open(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { j.Close() })
	return j
}

// start runs the jobs until the returned function is called.
func start(t *testing.T, j *Jobs) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func await(t *testing.T, j *Jobs, id, state string) (s api.Scan) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		s, err = j.Get(context.Background(), id)
		return err == nil && s.State == state
	}, 10*time.Second, 5*time.Millisecond, "waiting for %s", state)
	return s
}

func TestRunsAndKeepsResults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var changes atomic.Int64
	j := open(t, Config{Runner: &fakeRunner{n: 2500}, Changed: func(api.Scan) { changes.Add(1) }})
	defer start(t, j)()
	s, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}})
	require.NoError(t, err)
	require.Equal(t, api.ScanQueued, s.State)
	s = await(t, j, s.ID, api.ScanDone)
	require.EqualValues(t, 2500, s.Summary.Files)
	require.NotNil(t, s.Finished)
	require.Equal(t, "n1", s.Node)
	require.GreaterOrEqual(t, changes.Load(), int64(3))
	var got []string
	for token := ""; ; {
		page, err := j.Results(ctx, s.ID, token, 99)
		require.NoError(t, err)
		for _, l := range page.Items {
			got = append(got, l.Path)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	require.Len(t, got, 250)
	require.Equal(t, "2490", got[249])
	again, err := j.Start(ctx, api.ScanRequest{ID: s.ID, Paths: []string{"/x"}})
	require.NoError(t, err)
	require.Equal(t, api.ScanDone, again.State, "a retry starts nothing")
}

func TestResumesAfterRestart(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	reached := make(chan struct{})
	r := &fakeRunner{n: 100}
	r.at = func(ctx context.Context, i int) error {
		if i == 40 {
			close(reached)
			<-ctx.Done()
		}
		return nil
	}
	j := open(t, Config{Dir: dir, Runner: r})
	stop := start(t, j)
	s, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}})
	require.NoError(t, err)
	<-reached
	stop()
	require.NoError(t, j.Close())

	r.at = nil
	j = open(t, Config{Dir: dir, Runner: r})
	defer start(t, j)()
	s = await(t, j, s.ID, api.ScanDone)
	require.EqualValues(t, 100, s.Summary.Files)
	page, err := j.Results(ctx, s.ID, "", 500)
	require.NoError(t, err)
	require.Len(t, page.Items, 10)
	require.Len(t, r.seen, 100, "no file twice")
}

func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	r := &fakeRunner{n: 100_000}
	killed := errors.New("killed")
	r.at = func(_ context.Context, i int) error {
		if i == 25_123 {
			return &storeError{killed} // nothing is stored from here on, as after kill -9
		}
		return nil
	}
	j := open(t, Config{Dir: dir, Runner: r})
	stop := start(t, j)
	s, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(j.cfg.Conditions.List()) == 1 }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, ConditionWrite, j.cfg.Conditions.List()[0].Code)
	stop()
	require.NoError(t, j.Close())
	r.at = nil
	j = open(t, Config{Dir: dir, Runner: r})
	defer start(t, j)()
	s = await(t, j, s.ID, api.ScanDone)
	require.EqualValues(t, 100_000, s.Summary.Files)
	require.EqualValues(t, 10_000, s.Summary.Malicious)
	rec, err := j.store.get(ctx, s.ID)
	require.NoError(t, err)
	require.EqualValues(t, 10_000, rec.lines, "each result once")
}

func TestCancel(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	reached := make(chan struct{}, 1)
	r := &fakeRunner{n: 10, at: func(ctx context.Context, i int) error {
		if i == 5 {
			reached <- struct{}{}
			<-ctx.Done()
		}
		return nil
	}}
	j := open(t, Config{Runner: r, OnDemand: 1})
	defer start(t, j)()
	running, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}})
	require.NoError(t, err)
	<-reached
	waiting, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/y"}})
	require.NoError(t, err)
	require.NoError(t, j.Cancel(ctx, waiting.ID))
	require.Equal(t, api.ScanCancelled, await(t, j, waiting.ID, api.ScanCancelled).State)
	require.NoError(t, j.Cancel(ctx, running.ID))
	s := await(t, j, running.ID, api.ScanCancelled)
	require.EqualValues(t, 5, s.Summary.Files)
	require.NoError(t, j.Cancel(ctx, running.ID), "again is no error")
	require.ErrorIs(t, j.Cancel(ctx, "nobody"), ErrNotFound)
	require.EqualValues(t, 1, r.calls.Load())
}

func TestFailure(t *testing.T) {
	t.Parallel()
	j := open(t, Config{Runner: &fakeRunner{n: 5, at: func(context.Context, int) error { return errors.New("container is gone") }}})
	defer start(t, j)()
	s, err := j.Start(context.Background(), api.ScanRequest{Container: "x", Priority: "scheduled"})
	require.NoError(t, err)
	require.Equal(t, "container is gone", await(t, j, s.ID, api.ScanFailed).Error)
}

func TestBounds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	j := open(t, Config{Runner: &fakeRunner{n: 100}, Retain: 2, MaxResults: 3, OnDemand: 1})
	defer start(t, j)()
	var ids []string
	for range 4 {
		s, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}})
		require.NoError(t, err)
		ids = append(ids, s.ID)
	}
	s := await(t, j, ids[3], api.ScanDone)
	require.Contains(t, s.Error, "first 3 results")
	page, err := j.Results(ctx, s.ID, "", 0)
	require.NoError(t, err)
	require.Len(t, page.Items, 3)
	require.Eventually(t, func() bool { _, err := j.Get(ctx, ids[0]); return errors.Is(err, ErrNotFound) }, 5*time.Second, 5*time.Millisecond)
	first, err := j.List(ctx, "", 1)
	require.NoError(t, err)
	require.Equal(t, ids[3], first.Items[0].ID)
	rest, err := j.List(ctx, first.NextPageToken, 5)
	require.NoError(t, err)
	require.Len(t, rest.Items, 1)
	require.Empty(t, rest.NextPageToken)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	j := open(t, Config{Runner: &fakeRunner{}})
	_, err := j.Start(ctx, api.ScanRequest{})
	require.ErrorContains(t, err, "no target")
	_, err = j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}, Priority: "soon"})
	require.ErrorContains(t, err, "unknown priority")
	_, err = j.List(ctx, "x", 1)
	require.ErrorContains(t, err, "not valid")
	_, err = j.Get(ctx, "x")
	require.ErrorIs(t, err, ErrNotFound)
	s, err := j.Start(ctx, api.ScanRequest{Paths: []string{"/x"}})
	require.NoError(t, err)
	_, err = j.Results(ctx, s.ID, "-1", 1)
	require.ErrorContains(t, err, "not valid")
}
