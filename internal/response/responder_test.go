package response

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

type containers struct {
	pid   int
	start uint64
}

func (c *containers) Process(context.Context, string) (int, uint64, bool) {
	return c.pid, c.start, c.pid != 0
}

type responderTest struct {
	*Responder
	spread     *spread
	containers *containers
	verdict    threat.Verdict
	dir        string
}

func newResponder(t *testing.T) *responderTest {
	r := &responderTest{spread: &spread{}, containers: &containers{}, verdict: threat.Malicious, dir: realTempDir(t)}
	var err error
	r.Responder, err = New(Config{
		Vault: newVault(t, realTempDir(t)), Killer: &Killer{}, Governor: NewGovernor(r.spread, nil), Containers: r.containers,
		Rescan: func(context.Context, *os.File) (threat.Verdict, error) { return r.verdict, nil },
	})
	require.NoError(t, err)
	return r
}

// finding makes a file and the finding on it.
func (r *responderTest) finding(t *testing.T, name string) (threat.Finding, Target) {
	path := filepath.Join(r.dir, name)
	writeFile(t, path, "bad "+name)
	return threat.Finding{
		ID: "f-" + name, Object: hashOf(t, path), Verdict: threat.Malicious, Severity: threat.High,
		Workload: threat.Workload{ID: "host", Kind: threat.KindHost}, Location: threat.Location{Path: path}, State: threat.Open,
	}, Target{Path: path}
}

func decision(mode policy.Mode, actions ...threat.Action) policy.Decision {
	return policy.Decision{Policy: "p", Mode: mode, Actions: actions, Why: "severity high", Governor: policy.Default().Spec.Governor}
}

func results(f threat.Finding) map[threat.Action]string {
	m := map[threat.Action]string{}
	for _, d := range f.Decisions {
		m[d.Action] = d.Result
	}
	return m
}

func TestApply(t *testing.T) {
	t.Parallel()
	deny, quarantine, remove, kill, allow := threat.Deny, threat.Quarantine, threat.Delete, threat.Kill, threat.Allow
	image := func(r *responderTest, f *threat.Finding, t *Target) { t.ImageLayer = true }
	for name, tt := range map[string]struct {
		decision policy.Decision
		prepare  func(*responderTest, *threat.Finding, *Target)
		want     map[threat.Action]string
		state    threat.State
		file     bool // still there
		detail   string
	}{
		"deny and quarantine": {decision(policy.Enforce, quarantine, deny), nil,
			map[threat.Action]string{deny: "done", quarantine: "done"}, threat.Contained, false, "moved to quarantine"},
		"deny":    {decision(policy.Enforce, deny), nil, map[threat.Action]string{deny: "done"}, threat.Open, true, ""},
		"delete":  {decision(policy.Enforce, remove), nil, map[threat.Action]string{remove: "done"}, threat.Contained, false, "deleted"},
		"allow":   {decision(policy.Enforce, allow), nil, map[threat.Action]string{allow: "done"}, threat.Open, true, ""},
		"off":     {decision(policy.Off, quarantine), nil, map[threat.Action]string{}, threat.Open, true, ""},
		"nothing": {decision(policy.Enforce), nil, map[threat.Action]string{}, threat.Open, true, ""},
		"monitor": {decision(policy.Monitor, deny, quarantine, kill), nil,
			map[threat.Action]string{deny: "would", quarantine: "would", kill: "would"}, threat.Open, true, ""},
		"image layer": {decision(policy.Enforce, deny, quarantine), image,
			map[threat.Action]string{deny: "done", quarantine: "failed"}, threat.Open, true, "image infected: rebuild the image"},
		"delete in image layer": {decision(policy.Enforce, deny, remove), image,
			map[threat.Action]string{deny: "done", remove: "failed"}, threat.Open, true, "image infected: rebuild the image"},
		"widely spread": {decision(policy.Enforce, deny, quarantine, kill), func(r *responderTest, _ *threat.Finding, _ *Target) { r.spread.n = 99 },
			map[threat.Action]string{deny: "done", quarantine: "pending", kill: "pending"}, threat.Waiting, true, "99 workloads"},
		"changed": {decision(policy.Enforce, deny, quarantine), func(_ *responderTest, f *threat.Finding, _ *Target) { f.Object[0]++ },
			map[threat.Action]string{deny: "done", quarantine: "failed"}, threat.Open, true, "the content changed"},
		"unknown object": {decision(policy.Enforce, quarantine), func(_ *responderTest, f *threat.Finding, _ *Target) { f.Object = threat.Hash{} },
			map[threat.Action]string{quarantine: "failed"}, threat.Open, true, "not inspected"},
		"no process": {decision(policy.Enforce, kill), nil, map[threat.Action]string{kill: "failed"}, threat.Open, true, "not known"},
		"process ended": {decision(policy.Enforce, kill), func(_ *responderTest, f *threat.Finding, _ *Target) {
			f.Process = &threat.Process{PID: 1 << 30, Start: 1}
		}, map[threat.Action]string{kill: "done"}, threat.Contained, true, "had ended"},
		"container that is gone": {decision(policy.Enforce, deny, quarantine), func(_ *responderTest, f *threat.Finding, _ *Target) {
			f.Workload = threat.Workload{ID: "container/1", Kind: threat.KindContainer}
		}, map[threat.Action]string{deny: "done", quarantine: "failed"}, threat.Open, true, "no path is known"},
		"container that is gone, backing file": {decision(policy.Enforce, deny, quarantine), func(_ *responderTest, f *threat.Finding, t *Target) {
			f.Workload = threat.Workload{ID: "container/1", Kind: threat.KindContainer}
			t.HostPath, t.Path, t.PID, t.Start = t.Path, "/in/container", 1<<30, 5
		}, map[threat.Action]string{deny: "done", quarantine: "done"}, threat.Contained, false, "moved"},
		"container by another process": {decision(policy.Enforce, quarantine), func(r *responderTest, f *threat.Finding, t *Target) {
			f.Workload = threat.Workload{ID: "container/1", Kind: threat.KindContainer}
			t.PID, t.Start = 1<<30, 5
			start, _ := startTime(os.Getpid())
			*r.containers = containers{os.Getpid(), start}
		}, map[threat.Action]string{quarantine: "done"}, threat.Contained, false, "moved"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newResponder(t)
			f, target := r.finding(t, "x")
			path := target.Path
			if tt.prepare != nil {
				tt.prepare(r, &f, &target)
			}
			got := r.Apply(context.Background(), f, tt.decision, target)
			require.Equal(t, tt.want, results(got))
			require.Equal(t, tt.state, got.State)
			_, err := os.Stat(path)
			require.Equal(t, tt.file, err == nil)
			require.Equal(t, got.State == threat.Contained && tt.want[quarantine] == "done", got.VaultID != "")
			details := ""
			for _, d := range got.Decisions {
				details += d.Detail
				require.Equal(t, "policy:p", d.By)
				require.Equal(t, "severity high", d.Reason)
				require.False(t, d.At.IsZero())
			}
			require.Contains(t, details, tt.detail)
		})
	}
}

func TestApplyKillsFirst(t *testing.T) {
	t.Parallel()
	r := newResponder(t)
	f, target := r.finding(t, "x")
	cmd, p := sleeper(t)
	f.Process = &p
	got := r.Apply(context.Background(), f, decision(policy.Enforce, threat.Quarantine, threat.Kill, threat.Deny), target)
	require.Equal(t, []threat.Action{threat.Deny, threat.Kill, threat.Quarantine},
		[]threat.Action{got.Decisions[0].Action, got.Decisions[1].Action, got.Decisions[2].Action})
	require.Equal(t, map[threat.Action]string{threat.Deny: "done", threat.Kill: "done", threat.Quarantine: "done"}, results(got))
	require.Error(t, cmd.Wait())
}

func TestTooManyActionsWaitButDenialsDoNot(t *testing.T) {
	t.Parallel()
	r := newResponder(t)
	d := decision(policy.Enforce, threat.Deny, threat.Quarantine)
	d.Governor.ActionsPerMinute = 2
	var waiting threat.Finding
	var target Target
	for i, name := range []string{"a", "b", "c"} {
		f, at := r.finding(t, name)
		got := r.Apply(context.Background(), f, d, at)
		want := map[threat.Action]string{threat.Deny: "done", threat.Quarantine: "done"}
		if i == 2 {
			want[threat.Quarantine] = "pending"
			waiting, target = got, at
			require.FileExists(t, at.Path)
		}
		require.Equal(t, want, results(got))
	}
	require.Equal(t, threat.Waiting, waiting.State)
	got := r.Decide(context.Background(), waiting, threat.Quarantine, "user:ann", "I looked", target)
	require.Equal(t, threat.Contained, got.State)
	last := got.Decisions[len(got.Decisions)-1]
	require.Equal(t, "user:ann", last.By)
	require.Equal(t, "done", last.Result)
	require.NoFileExists(t, target.Path)
	require.Len(t, waiting.Decisions, 2, "the caller's finding is not changed")
	require.Equal(t, threat.Dismissed, r.Decide(context.Background(), waiting, threat.Allow, "user:ann", "ours", target).State)
	require.Equal(t, "failed", results(r.Decide(context.Background(), waiting, "burn", "user:ann", "", target))["burn"])
}

// Two accesses that saw the same file: the second finds it in quarantine.
func TestApplyTwice(t *testing.T) {
	t.Parallel()
	r := newResponder(t)
	f, target := r.finding(t, "x")
	d := decision(policy.Enforce, threat.Quarantine)
	first := r.Apply(context.Background(), f, d, target)
	second := r.Apply(context.Background(), f, d, target)
	require.Equal(t, "done", results(second)[threat.Quarantine])
	require.Equal(t, first.VaultID, second.VaultID)
}

func TestResponderRestore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newResponder(t)
	f, target := r.finding(t, "x")
	got := r.Apply(ctx, f, decision(policy.Enforce, threat.Quarantine), target)
	result, err := r.Restore(ctx, api.RestoreArgs{Item: got.VaultID}, false)
	require.ErrorIs(t, err, ErrStillMalicious)
	require.Empty(t, result.Path)
	result, err = r.Restore(ctx, api.RestoreArgs{Item: got.VaultID}, true)
	require.NoError(t, err)
	require.Equal(t, api.RestoreResult{Path: target.Path, Verdict: threat.Malicious}, result)
	require.FileExists(t, target.Path)

	r.verdict = threat.Clean
	got = r.Apply(ctx, f, decision(policy.Enforce, threat.Quarantine), target)
	other := filepath.Join(r.dir, "elsewhere\xff")
	result, err = r.Restore(ctx, api.RestoreArgs{Item: got.VaultID, Path: other}, false)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(r.dir, `elsewhere\xff`), result.Path)
	require.FileExists(t, other)
	_, err = r.Restore(ctx, api.RestoreArgs{Item: "nope"}, false)
	require.ErrorIs(t, err, ErrNoItem)
}

func TestRestoreToContainer(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newResponder(t)
	r.verdict = threat.Clean
	start, err := startTime(os.Getpid())
	require.NoError(t, err)
	*r.containers = containers{os.Getpid(), start}
	take := func(hostPath string) (threat.Finding, string) {
		f, target := r.finding(t, "x")
		f.Workload = threat.Workload{ID: "container/1", Kind: threat.KindContainer, Name: "web"}
		target.HostPath = hostPath
		return r.Apply(ctx, f, decision(policy.Enforce, threat.Quarantine), target), target.Path
	}
	got, path := take("")
	result, err := r.Restore(ctx, api.RestoreArgs{Item: got.VaultID}, false)
	require.NoError(t, err)
	require.Equal(t, path, result.Path)

	got, _ = take("")
	running := *r.containers
	*r.containers = containers{}
	_, err = r.Restore(ctx, api.RestoreArgs{Item: got.VaultID}, false)
	require.ErrorContains(t, err, "container web does not run; give another path")
	*r.containers = running
	host := filepath.Join(r.dir, "upper")
	got, _ = take(host)
	*r.containers = containers{}
	result, err = r.Restore(ctx, api.RestoreArgs{Item: got.VaultID}, false)
	require.NoError(t, err)
	require.Equal(t, host, result.Path)
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	_, err := New(Config{})
	require.ErrorContains(t, err, "required")
}
