package spool

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// TestInterrupted: what was recorded and never acted upon is found after a
// crash, once; what was updated is not.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 700 { // more than one transaction
		f := finding(i)
		f.Object[2] = byte(i >> 8)
		_, err := s.Record(t.Context(), &f)
		require.NoError(t, err)
		if i == 0 {
			f.State = threat.Contained
			require.NoError(t, s.Update(t.Context(), &f))
		}
	}
	again := open(t, dir)
	n, err := again.Interrupted(t.Context(), func(f *threat.Finding) { f.State = threat.Waiting })
	require.NoError(t, err)
	require.Equal(t, 699, n)
	n, err = again.Interrupted(t.Context(), func(*threat.Finding) { t.Error("twice") })
	require.NoError(t, err)
	require.Zero(t, n)
}

// TestCrowd: a workload that is the cause of findings for ever fills no disk;
// others still have findings of their own.
func TestCrowd(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	s.maxOpen = 3
	ids := map[string]bool{}
	for i := range 20 {
		f := finding(i)
		_, err := s.Record(t.Context(), &f)
		require.NoError(t, err)
		ids[f.ID] = true
		f.State = threat.Waiting
		require.NoError(t, s.Update(t.Context(), &f))
		if i == 19 {
			require.EqualValues(t, 17, f.Count)
		}
	}
	require.Len(t, ids, 4)
	f := finding(0)
	known, err := s.Record(t.Context(), &f)
	require.NoError(t, err)
	require.True(t, known, "the first ones stay what they are")
	require.EqualValues(t, 2, f.Count)
	f = finding(30)
	f.Workload.ID = "container/c10"
	known, err = s.Record(t.Context(), &f)
	require.NoError(t, err)
	require.False(t, known)
	b, _, err := s.Next(t.Context(), 100)
	require.NoError(t, err)
	require.Len(t, b.Findings, 5)
}
