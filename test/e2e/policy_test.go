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
	s.within(t, 0, "explanation", func() bool {
		require.NoError(t, s.ask(&e, "policy", "explain", c.ID))
		return true
	})
	require.Equal(t, "deny", e.Policy)
	require.Equal(t, c.ID, e.Workload.Name)
	require.NotEmpty(t, e.Considered)
}
