//go:build privileged

package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// testMonitor: everything works as before, and the finding says what would
// have been done.
func testMonitor(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "monitor")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(40), "/tmp/watched"))
	require.Equal(t, "ok", act(t, c, "open", "/tmp/watched"))
	f := s.finding(t, c, "/tmp/watched", func(f *threat.Finding) bool { return len(f.Decisions) > 0 })
	for _, d := range f.Decisions {
		require.Equal(t, "would", d.Result)
	}
	require.Equal(t, "would", result(&f, threat.Deny))
	require.Equal(t, "would", result(&f, threat.Quarantine))
	require.Equal(t, threat.Open, f.State)
	require.Equal(t, "ok", act(t, c, "open", "/tmp/watched"), "it is still there")
}

// testOff: nothing is inspected.
func testOff(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "off")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(41), "/tmp/unseen"))
	for _, verb := range []string{"open", "uring"} {
		require.Equal(t, "ok", act(t, c, verb, "/tmp/unseen"), verb)
	}
	require.False(t, s.has(t, c, "/tmp/unseen"))
}

// testExclusion: below the excluded path everything is allowed, beside it
// nothing changes.
func testExclusion(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "exclude")
	_, err := c.Exec(t.Context(), "/bin/mkdir", "/tmp/excluded")
	require.NoError(t, err)
	require.Equal(t, "ok", act(t, c, "write:"+eicar(42), "/tmp/excluded/sample"))
	require.Equal(t, "ok", act(t, c, "write:"+eicar(42), "/tmp/sample"))
	require.Equal(t, "ok", act(t, c, "open", "/tmp/excluded/sample"))
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/sample"))
	s.finding(t, c, "/tmp/sample", func(*threat.Finding) bool { return true })
	require.False(t, s.has(t, c, "/tmp/excluded/sample"))
}

// testExplain: the command line tells which policy a container got and why.
func testExplain(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	var e api.PolicyExplanation
	require.NoError(t, s.ask(&e, "policy", "explain", c.ID))
	require.Equal(t, "deny", e.Policy)
	require.Equal(t, c.ID, e.Workload.Name)
	require.NotEmpty(t, e.Considered)

	require.Equal(t, "ok", act(t, c, "write:"+eicar(43), "/tmp/explained"))
	f := s.finding(t, c, "/tmp/explained", func(*threat.Finding) bool { return true })
	require.NoError(t, s.ask(&e, "policy", "explain", "--finding", f.ID))
	require.Equal(t, "deny", e.Policy)
}

// testHealthy: nothing that happened so far is a reason to complain.
func testHealthy(t *testing.T, s *stand) {
	var st api.Status
	require.NoError(t, s.ask(&st, "status"))
	require.Empty(t, st.Conditions)
	require.Equal(t, threat.Informational, st.Health)
	require.Equal(t, []string{s.rt.Mount()}, st.Nodes[0].Report.Protected, "nothing else is protected")
}
