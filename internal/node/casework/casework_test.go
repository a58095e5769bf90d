package casework

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/node/guard"
	"github.com/lazaret/lazaret/internal/node/spool"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/response"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// fakeResponder quarantines everything and remembers what it was told.
type fakeResponder struct {
	mu      sync.Mutex
	targets []response.Target
	result  string
	detail  string
	gate    chan struct{} // Apply waits for it, if there is one
}

func (r *fakeResponder) Apply(ctx context.Context, f threat.Finding, d policy.Decision, t response.Target) threat.Finding {
	if r.gate != nil {
		<-r.gate
	}
	return r.Decide(ctx, f, threat.Quarantine, "policy:"+d.Policy, d.Why, t)
}

func (r *fakeResponder) Decide(_ context.Context, f threat.Finding, a threat.Action, by, reason string, t response.Target) threat.Finding {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = append(r.targets, t)
	f.Decisions = append(f.Decisions, threat.Decision{Action: a, By: by, Reason: reason, Result: r.result, Detail: r.detail})
	if r.result == threat.ResultDone {
		f.State, f.VaultID = threat.Contained, "v"+f.ID
	}
	return f
}

func (r *fakeResponder) told() []response.Target {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.targets
}

// fakeItems has every item but those called "purged".
type fakeItems struct{}

func (fakeItems) Get(_ context.Context, id string) (response.Item, error) {
	switch id {
	case "purged":
		return response.Item{}, response.ErrNoItem
	case "broken":
		return response.Item{}, errors.New("disk error")
	}
	return response.Item{QuarantineItem: api.QuarantineItem{ID: id, State: "held"}}, nil
}

// failing records refuse from a moment on.
type failing struct {
	*spool.Spool
	record, update error
}

func (f *failing) Record(ctx context.Context, x *threat.Finding) (bool, error) {
	if f.record != nil {
		return false, f.record
	}
	return f.Spool.Record(ctx, x)
}

func (f *failing) Update(ctx context.Context, x *threat.Finding) error {
	if f.update != nil {
		return f.update
	}
	return f.Spool.Update(ctx, x)
}

type stand struct {
	*Desk
	records    *failing
	responder  *fakeResponder
	conditions *condition.Set
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s, err := spool.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	st := &stand{records: &failing{Spool: s}, responder: &fakeResponder{result: threat.ResultDone}, conditions: &condition.Set{}}
	st.Desk = New(Config{
		Records: st.records, Responder: st.responder, Items: fakeItems{}, Conditions: st.conditions, Logger: slog.New(slog.DiscardHandler),
	})
	return st
}

// run runs the desk until the test ends.
func (s *stand) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.ErrorIs(t, <-done, context.Canceled) })
}

// next returns everything that waits for upload, and acknowledges it.
func (s *stand) next(t *testing.T) api.Batch {
	t.Helper()
	b, seq, err := s.records.Next(t.Context(), 10_000)
	require.NoError(t, err)
	require.NoError(t, s.records.Ack(t.Context(), seq))
	return b
}

func newCase() guard.Case {
	return guard.Case{
		Finding: threat.Finding{
			Object: threat.Hash{1}, Workload: threat.Workload{ID: "container/c1", Kind: threat.KindContainer},
			Location: threat.Location{Path: "/tmp/x"}, State: threat.Open, Policy: "web", Process: &threat.Process{PID: 7, Start: 9},
		},
		Decision: policy.Decision{Policy: "web", Mode: policy.Enforce, Actions: []threat.Action{threat.Quarantine}, Why: "severity high"},
		Place:    workload.Place{Path: "/tmp/x", HostPath: "/layers/x", Layer: workload.LayerUpper}, PID: 7,
	}
}

// TestOpen: recorded when Open returns, whatever became of the caller; acted
// upon afterwards; what was done and what was taken is reported.
func TestOpen(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Open(hurried, newCase()))
	b := s.next(t)
	require.Len(t, b.Findings, 1)
	require.Equal(t, threat.Open, b.Findings[0].State)
	require.Empty(t, b.Findings[0].Decisions)

	s.run(t)
	require.Eventually(t, func() bool { return len(s.responder.told()) == 1 }, 5*time.Second, time.Millisecond)
	require.Equal(t, response.Target{PID: 7, Start: 9, Path: "/tmp/x", HostPath: "/layers/x"}, s.responder.told()[0])
	require.Eventually(t, func() bool {
		f, ok, err := s.records.Finding(t.Context(), b.Findings[0].ID)
		return err == nil && ok && f.State == threat.Contained
	}, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { b = s.next(t); return len(b.Items) == 1 }, 5*time.Second, time.Millisecond)
}

func TestOpenNotRecorded(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.records.record = errors.New("disk is full")
	require.ErrorIs(t, s.Open(t.Context(), newCase()), s.records.record)
	require.Empty(t, s.queue, "nothing is done that nobody will know of")
}

// TestOccurrences: a second occurrence before the response of the first one
// loses neither its count nor its decisions.
func TestOccurrences(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	require.NoError(t, s.Open(t.Context(), newCase()))
	again := newCase()
	again.Finding.Process = &threat.Process{PID: 8, Start: 10}
	again.PID = 8
	require.NoError(t, s.Open(t.Context(), again))
	s.run(t)
	require.Eventually(t, func() bool { return len(s.responder.told()) == 2 }, 5*time.Second, time.Millisecond)
	require.Equal(t, 8, s.responder.told()[1].PID)
	require.Eventually(t, func() bool {
		for _, f := range s.next(t).Findings {
			if len(f.Decisions) == 2 && f.Count == 2 {
				return true
			}
		}
		return false
	}, 5*time.Second, time.Millisecond)
}

// TestFull: more findings than can be acted upon wait for a person.
func TestFull(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.queue = make(chan guard.Case, 1)
	for i := range 3 {
		c := newCase()
		c.Finding.Object[1] = byte(i)
		require.NoError(t, s.Open(t.Context(), c))
	}
	waiting := 0
	for _, f := range s.next(t).Findings {
		if f.State == threat.Waiting {
			waiting++
			require.Equal(t, threat.ResultPending, f.Decisions[0].Result)
			require.Equal(t, "policy:web", f.Decisions[0].By)
		}
	}
	require.Equal(t, 2, waiting)
}

// TestNotStored: a response that cannot be recorded is a condition.
func TestNotStored(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.records.update = errors.New("disk is full")
	require.NoError(t, s.Open(t.Context(), newCase()))
	s.run(t)
	require.Eventually(t, func() bool {
		list := s.conditions.List()
		return len(list) == 1 && list[0].Code == "response_not_recorded"
	}, 5*time.Second, time.Millisecond)
}

func TestTarget(t *testing.T) {
	t.Parallel()
	c := newCase()
	c.PID = 5 // another process that sees the file
	require.Equal(t, response.Target{PID: 5, Path: "/tmp/x", HostPath: "/layers/x"}, target(c))
	c.Place.Layer = "sha256:abc"
	require.True(t, target(c).ImageLayer)
	c.Finding.Workload.Kind = threat.KindHost
	require.Zero(t, target(c).PID, "a path of the host is looked up on the host")
}

// TestDecide: a person's decision is carried out, stored, and its failure told.
func TestDecide(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	f := newCase().Finding
	_, err := s.records.Record(t.Context(), &f)
	require.NoError(t, err)
	got, err := s.Decide(t.Context(), f, threat.Quarantine, "user:ann", "confirmed")
	require.NoError(t, err)
	require.Equal(t, threat.Contained, got.State)
	require.Equal(t, 7, s.responder.told()[0].PID)
	require.Len(t, s.next(t).Items, 1)

	s.responder.result, s.responder.detail = threat.ResultFailed, "the file is no longer there"
	got, err = s.Decide(t.Context(), f, threat.Delete, "user:ann", "confirmed")
	require.EqualError(t, err, "the file is no longer there")
	require.Len(t, s.next(t).Findings[0].Decisions, len(got.Decisions), "the failure is stored too")
	s.records.update = errors.New("disk is full")
	_, err = s.Decide(t.Context(), f, threat.Delete, "user:ann", "confirmed")
	require.ErrorIs(t, err, s.records.update)
}

// TestDecisionsBounded: a finding that comes back for ever keeps its first and
// its last decisions.
func TestDecisionsBounded(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	f := newCase().Finding
	for i := range 2 * maxDecisions {
		f.Decisions = append(f.Decisions, threat.Decision{Detail: string(rune('A' + i))})
	}
	got, err := s.Decide(t.Context(), f, threat.Quarantine, "user:ann", "again")
	require.NoError(t, err)
	require.Len(t, got.Decisions, maxDecisions)
	require.Equal(t, "A", got.Decisions[0].Detail)
	require.Equal(t, "again", got.Decisions[maxDecisions-1].Reason)
}

// TestRecovered: what a crash interrupted is in its finding.
func TestRecovered(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	var all []response.Recovered
	ids := []string{}
	for i, done := range []bool{true, false} {
		f := newCase().Finding
		f.Object[1] = byte(i)
		_, err := s.records.Record(t.Context(), &f)
		require.NoError(t, err)
		ids = append(ids, f.ID)
		all = append(all, response.Recovered{What: "quarantine", Done: done,
			Item: response.Item{QuarantineItem: api.QuarantineItem{ID: "item" + f.ID, Finding: f.ID}}})
	}
	all = append(all, response.Recovered{What: "quarantine", Done: true, Item: response.Item{QuarantineItem: api.QuarantineItem{ID: "x", Finding: "unknown"}}})
	require.NoError(t, s.Recovered(t.Context(), all))
	f, _, err := s.records.Finding(t.Context(), ids[0])
	require.NoError(t, err)
	require.Equal(t, threat.Contained, f.State)
	require.Equal(t, "item"+ids[0], f.VaultID)
	f, _, err = s.records.Finding(t.Context(), ids[1])
	require.NoError(t, err)
	require.Equal(t, threat.ResultFailed, f.Decisions[0].Result)
	require.Equal(t, threat.Open, f.State)
	require.Len(t, s.next(t).Items, 3, "items are reported, those of unknown findings too")
}

func TestItem(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	require.NoError(t, s.Item(t.Context(), "purged"))
	require.ErrorContains(t, s.Item(t.Context(), "broken"), "disk error")
	require.Empty(t, s.next(t).Items)
}
