package guard

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// fakeScans answers with one report, after a while if told so.
type fakeScans struct {
	mu       sync.Mutex
	known    map[event.FileKey]scan.Report
	report   scan.Report
	err      error
	block    chan struct{} // Inspect waits until it is closed
	requests []scan.Request
	seen     []threat.Location
}

func (f *fakeScans) Lookup(k event.FileKey) (scan.Report, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.known[k]
	return r, ok
}

func (f *fakeScans) Inspect(ctx context.Context, r scan.Request) (scan.Report, error) {
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return scan.Report{}, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	return f.report, f.err
}

func (f *fakeScans) Remember(_ threat.Hash, l threat.Location) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, l)
}

// fakeWho knows one container with process 7; process 8 is ending: it has a
// workload but no mounts; process 9 is gone.
type fakeWho struct{ container threat.Workload }

var errGone = errors.New("gone")

func (f fakeWho) Host() threat.Workload { return threat.Workload{ID: "host", Kind: threat.KindHost} }

func (f fakeWho) Workloads() []threat.Workload { return []threat.Workload{f.Host(), f.container} }

func (f fakeWho) Process(pid int) (threat.Workload, error) {
	switch pid {
	case 1:
		return f.Host(), nil
	case 7, 8:
		return f.container, nil
	}
	return threat.Workload{}, errGone
}

func (f fakeWho) Describe(pid int) (threat.Process, error) {
	if pid != 1 && pid != 7 {
		return threat.Process{PID: pid}, errGone
	}
	return threat.Process{PID: pid, Start: 100, Exe: "/bin/sh"}, nil
}

func (f fakeWho) Locate(pid int, name string, _, _ uint64) (workload.Place, error) {
	if pid != 1 && pid != 7 {
		return workload.Place{Path: name}, errGone
	}
	return workload.Place{Path: name, HostPath: "/layers/up" + name, Layer: workload.LayerUpper, Writable: true}, nil
}

func (f fakeWho) Holder(name string, _, ino uint64) (threat.Workload, workload.Place, error) {
	if ino == 404 {
		return threat.Workload{}, workload.Place{}, errGone
	}
	p, err := f.Locate(7, name, 0, 0)
	return f.container, p, err
}

// fakeCases records what it is told, or refuses.
type fakeCases struct {
	mu   sync.Mutex
	all  []Case
	fail error
}

func (f *fakeCases) Open(_ context.Context, c Case) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.all = append(f.all, c)
	return nil
}

type stand struct {
	*Guard
	scans      *fakeScans
	cases      *fakeCases
	conditions *condition.Set
}

func newStand(t *testing.T, change func(*policy.Spec)) *stand {
	t.Helper()
	s := &stand{scans: &fakeScans{known: map[event.FileKey]scan.Report{}}, cases: &fakeCases{}, conditions: &condition.Set{}}
	s.Guard = New(Config{
		Node: "n1", Scans: s.scans, Cases: s.cases, Conditions: s.conditions, Logger: slog.New(slog.DiscardHandler),
		Who: fakeWho{threat.Workload{ID: "container/c1", Kind: threat.KindContainer, Name: "c1", Image: "web:1"}},
	})
	if change != nil {
		p := policy.Default()
		p.Metadata.Name = "web"
		p.Spec.Selector = policy.Selector{Kinds: []threat.Kind{threat.KindContainer}}
		change(&p.Spec)
		s.SetPolicies(policy.NewSet([]policy.Policy{p}))
	}
	return s
}

// file is an access of the container's process to a file.
func file(t *testing.T, op event.Op) *event.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return &event.File{
		Op: op, PID: 7, PIDFD: -1, File: f, Path: "/tmp/x", Time: time.Now(),
		Key: event.FileKey{Dev: 1, Ino: 2, CTime: 3, MTime: 4, Size: 5},
	}
}

// report is what inspection says; a severity adds a detection.
func report(v threat.Verdict, s threat.Severity) scan.Report {
	o := threat.Object{Hash: threat.Hash{1}, Size: 5, Verdict: v}
	if s != "" {
		o.Detections = []threat.Detection{{Signature: "Test", Engine: "yara", Severity: s}}
	}
	if v == threat.Partial {
		o.Reasons = []threat.Reason{{Code: threat.ReasonEncrypted, Text: "It is encrypted."}}
	}
	return scan.Report{Hash: o.Hash, Size: 5, Verdict: v, Epoch: 3, Count: 1, Objects: []threat.Object{o}}
}
