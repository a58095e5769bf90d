package scan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/threat"
)

// bad is what the fake engine calls malicious.
const bad = "very bad content"

// fakeInspector finds bad, calls "locked" encrypted, and reports a member for
// content that starts with "archive".
type fakeInspector struct {
	epoch atomic.Uint64
	calls atomic.Int64
	// before, if set, runs at the start of each inspection.
	before func(ctx context.Context, content []byte) error

	mu   sync.Mutex
	seen []string
}

func (f *fakeInspector) Inspect(ctx context.Context, file *os.File, _ engine.Limits) (*engine.Result, error) {
	f.calls.Add(1)
	epoch := threat.Epoch(f.epoch.Load())
	content, err := io.ReadAll(io.NewSectionReader(file, 0, 32<<20))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.seen = append(f.seen, string(content[:min(len(content), 40)]))
	f.mu.Unlock()
	if f.before != nil {
		if err := f.before(ctx, content); err != nil {
			return nil, err
		}
		if content, err = io.ReadAll(io.NewSectionReader(file, 0, 1<<30)); err != nil {
			return nil, err
		}
	}
	if info, err := file.Stat(); err == nil && info.Size() > hashFirst { // as after the time limit: no hash
		return &engine.Result{Epoch: epoch, Objects: []threat.Object{{
			Size: info.Size(), Verdict: threat.Malicious, Reasons: []threat.Reason{{Code: threat.ReasonLimitTime}},
		}}}, nil
	}
	o := threat.Object{Hash: sha256.Sum256(content), Size: int64(len(content)), Type: "data", Verdict: threat.Clean}
	objects := []threat.Object{o}
	switch {
	case bytes.Contains(content, []byte(bad)):
		objects[0].Verdict = threat.Malicious
		objects[0].Detections = []threat.Detection{{Signature: "Test.Bad", Engine: "fake", Severity: threat.High}}
	case bytes.Contains(content, []byte("locked")):
		objects[0].Verdict = threat.Partial
		objects[0].Reasons = []threat.Reason{{Code: threat.ReasonEncrypted, Text: "It is encrypted."}}
	case bytes.HasPrefix(content, []byte("archive")):
		objects[0].Type = "zip"
		member := content[len("archive"):]
		objects = append(objects, threat.Object{
			Hash: sha256.Sum256(member), Size: int64(len(member)), Type: "data", Member: "inner", Verdict: threat.Clean,
		})
	}
	return &engine.Result{Objects: objects, Epoch: epoch}, nil
}

func newFake() *fakeInspector {
	f := &fakeInspector{}
	f.epoch.Store(1)
	return f
}

func newService(t testing.TB, dir string, f *fakeInspector) (*Service, *condition.Set) {
	t.Helper()
	conditions := &condition.Set{}
	s, err := New(Config{
		Dir: dir, Inspector: f, Epoch: func() threat.Epoch { return threat.Epoch(f.epoch.Load()) }, Workers: 2,
		Conditions: conditions, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, s.Close())
	})
	return s, conditions
}

func newScanner(s *Service) *Scanner { return &Scanner{Service: s, Targets: &target.Resolver{}} }

func write(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func keyAt(ctime time.Time) event.FileKey { return event.FileKey{Ino: 1, CTime: ctime.UnixNano()} }
