//go:build privileged

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// taken writes a malicious file and waits until it is in quarantine.
func (s *stand) taken(t *testing.T, c *containerdtest.Container, n int, path string) (threat.Finding, api.QuarantineItem) {
	t.Helper()
	require.Equal(t, "ok", act(t, c, "write:"+eicar(n), path))
	f := s.finding(t, c, path, func(f *threat.Finding) bool { return f.VaultID != "" && f.State == threat.Contained })
	var item api.QuarantineItem
	s.within(t, 5*time.Second, "the item is reported", func() bool {
		return s.ask(&item, "quarantine", "show", f.VaultID) == nil && item.State == "held"
	})
	return f, item
}

// testQuarantine: a written file is taken away; the record says from where.
func testQuarantine(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "take")
	f, item := s.taken(t, c, 20, "/tmp/taken")
	require.Equal(t, f.ID, item.Finding)
	require.Equal(t, f.Object, item.Object)
	require.Equal(t, c.ID, item.Workload.Name)
	require.Equal(t, imageClean, item.Workload.Image)
	require.Equal(t, "/tmp/taken", item.Location.Path)
	require.Equal(t, "upper", item.Location.Layer)
	require.EqualValues(t, len(eicar(20)), item.Size)
	require.Equal(t, "ENOENT", act(t, c, "open", "/tmp/taken"))
}

// testRestore: what is still malicious comes back only if a person says so.
func testRestore(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "take")
	_, item := s.taken(t, c, 21, "/tmp/back")
	_, stderr, code := s.lazaret("quarantine", "restore", item.ID, "--reason", "it is ours")
	require.Equal(t, 12, code, stderr)
	require.Contains(t, stderr, "--allow-for")
	require.Equal(t, "ENOENT", act(t, c, "open", "/tmp/back"))

	require.Equal(t, "ok", act(t, c, "write:in the way", "/tmp/back"))
	var done api.RestoreResult
	require.NoError(t, s.ask(&done, "quarantine", "restore", item.ID, "--reason", "it is ours", "--allow-for", "1h"))
	require.NotEqual(t, "/tmp/back", done.Path, "what is there now stays")
	require.NotEmpty(t, done.Path)
	require.Equal(t, "ok", act(t, c, "open", done.Path), "allow-listed")
	r, err := c.Exec(t.Context(), "/bin/cat", done.Path)
	require.NoError(t, err)
	require.Equal(t, eicar(21), r.Stdout)
	require.NoError(t, s.ask(&item, "quarantine", "show", item.ID))
	require.Equal(t, "restored", item.State)
	var log []api.AuditEntry
	require.NoError(t, s.ask(&log, "audit", "list"))
	require.True(t, slices.ContainsFunc(log, func(e api.AuditEntry) bool {
		return strings.Contains(e.Target, item.ID) && e.Reason == "it is ours" && strings.HasPrefix(e.Actor, "user:")
	}), "%+v", log)
}

// testSpread: an object in many workloads is denied in all, but waits for a
// person before anything is taken away.
func testSpread(t *testing.T, s *stand) {
	one, two := s.container(t, imageClean, "spread"), s.container(t, imageClean, "spread")
	s.taken(t, one, 22, "/tmp/wide")
	require.Equal(t, "ok", act(t, two, "write:"+eicar(22), "/tmp/wide"))
	f := s.finding(t, two, "/tmp/wide", func(f *threat.Finding) bool { return f.State == threat.Waiting })
	require.Equal(t, "pending", result(&f, threat.Quarantine))
	require.Contains(t, f.Decisions[len(f.Decisions)-1].Detail, "2 workloads")
	require.Equal(t, "EPERM", act(t, two, "open", "/tmp/wide"), "it waits in its place, denied")

	require.NoError(t, s.ask(&f, "finding", "decide", f.ID, "quarantine", "--reason", "confirmed"))
	f = s.finding(t, two, "/tmp/wide", func(f *threat.Finding) bool { return f.State == threat.Contained })
	require.Equal(t, "done", result(&f, threat.Quarantine))
	require.Equal(t, "ENOENT", act(t, two, "open", "/tmp/wide"))
}

// testActionsPerMinute: the fourth action within a minute waits.
func testActionsPerMinute(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "rate")
	path := func(i int) string { return fmt.Sprintf("/tmp/rate%d", i) }
	for i := range 5 {
		require.Equal(t, "ok", act(t, c, "write:"+eicar(30+i), path(i)))
	}
	contained, waiting := 0, 0
	for i := range 5 {
		f := s.finding(t, c, path(i), func(f *threat.Finding) bool { return result(f, threat.Quarantine) != "" })
		switch f.State {
		case threat.Contained:
			contained++
			require.Equal(t, "ENOENT", act(t, c, "open", path(i)))
		case threat.Waiting:
			waiting++
			require.Equal(t, "EPERM", act(t, c, "open", path(i)))
		}
	}
	require.Equal(t, 3, contained)
	require.Equal(t, 2, waiting)
}

// testKill: the process that opened the file ends.
func testKill(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "kill")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(23), "/tmp/deadly"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	start := time.Now()
	r, err := c.Sh(ctx, `read x </tmp/deadly; sleep 25; echo alive`)
	require.NoError(t, err)
	require.Equal(t, 137, r.Code, "killed: %+v", r)
	require.Less(t, time.Since(start), 10*time.Second)
	f := s.finding(t, c, "/tmp/deadly", func(f *threat.Finding) bool { return result(f, threat.Kill) == "done" })
	require.Equal(t, threat.Contained, f.State)
}
