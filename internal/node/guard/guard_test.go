package guard

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/driver/fanotify"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestAccess: verdict, severity, policy and operation give the answer, and
// whether there is a finding.
func TestAccess(t *testing.T) {
	t.Parallel()
	mode := func(m policy.Mode) func(*policy.Spec) { return func(s *policy.Spec) { s.Mode = m } }
	none := func(*policy.Spec) {}
	for name, c := range map[string]struct {
		spec     func(*policy.Spec)
		op       event.Op
		report   scan.Report
		err      error
		want     fanotify.Answer
		findings int
	}{
		"clean":              {none, event.Open, report(threat.Clean, ""), nil, remember, 0},
		"clean exec":         {none, event.Exec, report(threat.Clean, ""), nil, remember, 0},
		"critical":           {none, event.Open, report(threat.Malicious, threat.Critical), nil, deny, 1},
		"high exec":          {none, event.Exec, report(threat.Malicious, threat.High), nil, deny, 1},
		"medium":             {none, event.Open, report(threat.Suspicious, threat.Medium), nil, deny, 1},
		"low":                {none, event.Open, report(threat.Suspicious, threat.Low), nil, allow, 1},
		"crashed the engine": {none, event.Open, report(threat.Suspicious, ""), nil, deny, 1},
		"partial":            {none, event.Open, report(threat.Partial, ""), nil, allow, 0},
		"partial denied":     {func(s *policy.Spec) { s.Partial = policy.ChooseDeny }, event.Open, report(threat.Partial, ""), nil, deny, 1},
		"error verdict":      {none, event.Open, report(threat.Error, ""), nil, allow, 0},
		"error, closed":      {func(s *policy.Spec) { s.FailMode = policy.FailClosed }, event.Open, report(threat.Error, ""), nil, deny, 1},
		"no verdict":         {none, event.Open, scan.Report{}, errors.New("queue is full"), allow, 0},
		"no verdict, closed": {func(s *policy.Spec) { s.FailMode = policy.FailClosed }, event.Open, scan.Report{}, errors.New("queue is full"), deny, 0},
		"monitor":            {mode(policy.Monitor), event.Open, report(threat.Malicious, threat.High), nil, allow, 1},
		"monitor, closed": {func(s *policy.Spec) { s.Mode, s.FailMode = policy.Monitor, policy.FailClosed },
			event.Open, scan.Report{}, errors.New("queue is full"), allow, 0},
		"off":           {mode(policy.Off), event.Open, report(threat.Malicious, threat.High), nil, allow, 0},
		"opens not":     {func(s *policy.Spec) { s.OnAccess.Open = false }, event.Open, report(threat.Malicious, threat.High), nil, allow, 0},
		"but execs":     {func(s *policy.Spec) { s.OnAccess.Open = false }, event.Exec, report(threat.Malicious, threat.High), nil, deny, 1},
		"execs not":     {func(s *policy.Spec) { s.OnAccess.Exec = false }, event.Exec, report(threat.Malicious, threat.High), nil, allow, 0},
		"excluded path": {exclude("/tmp/*"), event.Open, report(threat.Malicious, threat.High), nil, allow, 0},
		"other path":    {exclude("/srv/*"), event.Open, report(threat.Malicious, threat.High), nil, deny, 1},
		"record only":   {func(s *policy.Spec) { s.Actions.High = nil }, event.Open, report(threat.Malicious, threat.High), nil, allow, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, c.spec)
			s.scans.report, s.scans.err = c.report, c.err
			require.Equal(t, c.want, s.Access(t.Context(), file(t, c.op)))
			require.Len(t, s.cases.all, c.findings)
			if c.findings > 0 {
				f := s.cases.all[0].Finding
				require.Equal(t, "web", f.Policy)
				require.Equal(t, "container/c1", f.Workload.ID)
				require.Equal(t, "/tmp/x", f.Location.Path)
				require.Equal(t, "/layers/up/tmp/x", f.Location.HostPath)
				require.Equal(t, string(c.op), f.Trigger)
				require.Equal(t, threat.Open, f.State)
				require.EqualValues(t, 3, f.Epoch)
				require.Equal(t, 7, f.Process.PID)
			}
			require.Equal(t, c.err != nil, len(s.conditions.List()) > 0, "an access without a verdict is a condition")
		})
	}
}

func exclude(path string) func(*policy.Spec) {
	return func(s *policy.Spec) {
		s.Exclusions = []policy.Exclusion{{Paths: []string{path}, Reason: "ours", Owner: "me", Expires: time.Now().Add(time.Hour)}}
	}
}

// TestKnown: a known verdict is answered without asking, unless somebody may
// be changing the file.
func TestKnown(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	ev := file(t, event.Open)
	s.scans.known[ev.Key] = report(threat.Clean, "")
	s.scans.report = report(threat.Malicious, threat.High)
	require.Equal(t, remember, s.Access(t.Context(), ev))
	require.Empty(t, s.scans.requests)

	ev.Unstable = true
	require.Equal(t, deny, s.Access(t.Context(), ev))
	require.Len(t, s.scans.requests, 1)
	require.True(t, s.scans.requests[0].Volatile)
	require.Equal(t, scan.OnAccess, s.scans.requests[0].Priority)

	ev = file(t, event.Open)
	s.scans.known[ev.Key] = report(threat.Malicious, threat.High)
	require.Equal(t, deny, s.Access(t.Context(), ev))
	require.Len(t, s.scans.requests, 1, "known to be bad")
}

// TestDeadline: at the policy's deadline the fail mode answers; the inspection
// goes on for the next access.
func TestDeadline(t *testing.T) {
	t.Parallel()
	for mode, want := range map[policy.FailMode]fanotify.Answer{policy.FailOpen: allow, policy.FailClosed: deny} {
		s := newStand(t, func(p *policy.Spec) { p.Deadline, p.FailMode = 20*time.Millisecond, mode })
		s.scans.block = make(chan struct{})
		s.scans.report = report(threat.Clean, "")
		start := time.Now()
		require.Equal(t, want, s.Access(t.Context(), file(t, event.Open)))
		require.Less(t, time.Since(start), 5*time.Second)
		require.EqualValues(t, 1, s.Stats().Timeouts.Load())
		require.Equal(t, "access_unjudged", s.conditions.List()[0].Code)
		close(s.scans.block)
		require.Eventually(t, func() bool {
			s.scans.mu.Lock()
			defer s.scans.mu.Unlock()
			return len(s.scans.requests) == 1
		}, 5*time.Second, time.Millisecond, "the inspection was not given up")
	}
}

// TestRecordedBeforeDenied: the finding is stored when the answer is given,
// and a store that fails is a condition, not an open door.
func TestRecordedBeforeDenied(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.scans.report = report(threat.Malicious, threat.High)
	s.cases.fail = errors.New("disk is full")
	require.Equal(t, deny, s.Access(t.Context(), file(t, event.Open)))
	require.Equal(t, "finding_not_recorded", s.conditions.List()[0].Code)
	s.cases.fail = nil
	require.Equal(t, deny, s.Access(t.Context(), file(t, event.Open)))
	require.Len(t, s.cases.all, 1, "recorded with the next access, not ten seconds later")
}

// TestRepeats: trying again and again is denied each time and recorded once;
// another version of the file is another matter.
func TestRepeats(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.scans.report = report(threat.Malicious, threat.High)
	for range 5 {
		require.Equal(t, deny, s.Access(t.Context(), file(t, event.Open)))
	}
	require.Len(t, s.cases.all, 1)
	require.EqualValues(t, 5, s.Stats().Denied.Load())
	ev := file(t, event.Open)
	ev.Key.CTime++
	require.Equal(t, deny, s.Access(t.Context(), ev))
	require.Len(t, s.cases.all, 2)
	ev.PID = 1
	require.Equal(t, deny, s.Access(t.Context(), ev))
	require.Len(t, s.cases.all, 3, "another workload")
	s.Written(t.Context(), file(t, event.Write))
	require.Len(t, s.cases.all, 4, "a write tells something else than an access")
}

// TestRepeatsKill: a policy that kills does so to each process.
func TestRepeatsKill(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(p *policy.Spec) { p.Actions.High = []threat.Action{threat.Deny, threat.Kill} })
	s.scans.report = report(threat.Malicious, threat.High)
	s.Written(t.Context(), file(t, event.Write))
	for _, pid := range []int{7, 7, 8} {
		ev := file(t, event.Open)
		ev.PID = pid
		require.Equal(t, deny, s.Access(t.Context(), ev))
	}
	require.Len(t, s.cases.all, 3, "the write and two processes")
}

// TestAllowed: what a person allow-listed is no finding until that ends.
func TestAllowed(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.scans.report = report(threat.Malicious, threat.High)
	s.SetAllowed(map[threat.Hash]time.Time{{1}: time.Now().Add(time.Hour)})
	require.Equal(t, allow, s.Access(t.Context(), file(t, event.Open)), "allowed, but not remembered: permissions end")
	require.Empty(t, s.cases.all)
	s.SetAllowed(map[threat.Hash]time.Time{{1}: time.Now().Add(-time.Second)})
	require.Equal(t, deny, s.Access(t.Context(), file(t, event.Open)))
	require.Len(t, s.cases.all, 1)
}

// TestWritten: nobody waits, so nothing is denied; a threat is a finding.
func TestWritten(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.scans.report = report(threat.Malicious, threat.High)
	s.Written(t.Context(), file(t, event.Write))
	require.Len(t, s.cases.all, 1)
	require.Zero(t, s.Stats().Denied.Load())
	require.Equal(t, "write", s.cases.all[0].Finding.Trigger)
	require.Equal(t, scan.OnDemand, s.scans.requests[0].Priority)

	s = newStand(t, func(p *policy.Spec) { p.OnAccess.Write = false })
	s.scans.report = report(threat.Malicious, threat.High)
	s.Written(t.Context(), file(t, event.Write))
	require.Empty(t, s.cases.all)
	require.Empty(t, s.scans.requests)

	s = newStand(t, nil)
	s.scans.err = errors.New("queue is full")
	s.Written(t.Context(), file(t, event.Write))
	require.Empty(t, s.cases.all)
}

// TestEndedProcess: the writer may be gone before its file is looked at.
func TestEndedProcess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pid      int
		ino      uint64
		workload string
		layer    string
	}{
		"ending":             {8, 2, "container/c1", "upper"},
		"gone":               {9, 2, "container/c1", "upper"},
		"gone with its file": {9, 404, "host", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, nil)
			s.scans.report = report(threat.Malicious, threat.High)
			ev := file(t, event.Write)
			ev.PID, ev.Key.Ino = c.pid, c.ino
			s.Written(t.Context(), ev)
			require.Len(t, s.cases.all, 1)
			f := s.cases.all[0].Finding
			require.Equal(t, c.workload, f.Workload.ID)
			require.Equal(t, c.layer, f.Location.Layer)
			require.Equal(t, "/tmp/x", f.Location.Path)
			require.Nil(t, f.Process)
			require.Equal(t, c.workload == "host", s.Stats().Unattributed.Load() == 1)
		})
	}
}

// TestIndex: where clean objects are is noted for later signatures.
func TestIndex(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.scans.report = report(threat.Clean, "")
	s.Access(t.Context(), file(t, event.Open))
	s.Written(t.Context(), file(t, event.Write))
	require.Len(t, s.scans.seen, 2)
	require.Equal(t, "container/c1", s.scans.seen[0].Workload)
	require.Equal(t, "/tmp/x", s.scans.seen[1].Path)
}

// TestHit: what a scan finds belongs to the workload of its location.
func TestHit(t *testing.T) {
	t.Parallel()
	s := newStand(t, exclude("/ours/*"))
	hit := scan.Hit{Location: threat.Location{Workload: "container/c1", Path: "/tmp/y", Layer: "sha256:abc"}, Report: report(threat.Malicious, threat.High)}
	require.NoError(t, s.Hit(t.Context(), hit))
	hit.Location.Workload = "host"
	require.NoError(t, s.Hit(t.Context(), hit))
	hit.Location.Workload, hit.Location.Path = "container/c1", "/ours/y"
	require.NoError(t, s.Hit(t.Context(), hit))
	require.Len(t, s.cases.all, 2)
	c := s.cases.all[0]
	require.Equal(t, "c1", c.Finding.Workload.Name)
	require.Equal(t, "web", c.Finding.Policy)
	require.Equal(t, "scan", c.Finding.Trigger)
	require.False(t, c.Place.Writable)
	require.Equal(t, threat.KindHost, s.cases.all[1].Finding.Workload.Kind)
	require.Equal(t, policy.DefaultName, s.cases.all[1].Finding.Policy)
	s.cases.fail = errors.New("disk is full")
	hit.Location.Path = "/tmp/z"
	require.Error(t, s.Hit(t.Context(), hit))
}

func TestOverflow(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.Overflow(t.Context())
	require.Equal(t, "events_lost", s.conditions.List()[0].Code)
}

// TestDescribe: detections of all members once each, reasons bounded.
func TestDescribe(t *testing.T) {
	t.Parallel()
	d := threat.Detection{Signature: "A", Engine: "yara", Severity: threat.High}
	objects := []threat.Object{{}, {Member: "a\xff.txt", Detections: []threat.Detection{d}}, {Member: "b", Detections: []threat.Detection{d}}}
	for range 2 * maxReasons {
		objects = append(objects, threat.Object{Reasons: []threat.Reason{{Code: threat.ReasonDamaged}}})
	}
	var f threat.Finding
	describe(&f, objects)
	require.Len(t, f.Detections, 1)
	require.Equal(t, "a\uFFFD.txt", f.Member)
	require.Len(t, f.Reasons, maxReasons)
}

// BenchmarkKnown is the path of every repeated open.
func BenchmarkKnown(b *testing.B) {
	ev := event.File{Op: event.Open, PID: 7, Key: event.FileKey{Ino: 2}}
	g := New(Config{Scans: &fakeScans{known: map[event.FileKey]scan.Report{ev.Key: {Verdict: threat.Clean}}}, Who: fakeWho{}, Cases: &fakeCases{}})
	b.ReportAllocs()
	for b.Loop() {
		if !g.Access(context.Background(), &ev).Remember {
			b.Fatal("not remembered")
		}
	}
}
