package response

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

type spread struct {
	n   int
	err error
}

func (s *spread) Workloads(threat.Hash) (int, error) { return s.n, s.err }

func TestGovernor(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	s := &spread{n: 1}
	g := NewGovernor(s, func() time.Time { return now })
	limits := policy.Governor{ActionsPerMinute: 6, MaxWorkloads: 3}
	admit := func(name string) bool {
		ok, why := g.Admit(name, limits, threat.Hash{1})
		require.Equal(t, ok, why == "")
		return ok
	}
	for range 6 {
		require.True(t, admit("a"))
	}
	require.False(t, admit("a"), "the seventh in a minute")
	require.True(t, admit("b"), "another policy has its own count")
	now = now.Add(10 * time.Second)
	require.True(t, admit("a"), "one more every ten seconds")
	require.False(t, admit("a"))
	now = now.Add(time.Hour)
	for range 6 {
		require.True(t, admit("a"))
	}
	require.False(t, admit("a"), "no more than a minute's worth is saved up")
	now = now.Add(-time.Hour)
	require.False(t, admit("a"), "a clock that goes back gives nothing")

	s.n = 2
	require.True(t, admit("c"))
	s.n = 3
	require.False(t, admit("c"))
	s.n, s.err = 0, errors.New("index lost")
	require.False(t, admit("c"), "unknown is not few")
	ok, _ := g.Admit("d", limits, threat.Hash{})
	require.True(t, ok, "no object, no spread")
}
