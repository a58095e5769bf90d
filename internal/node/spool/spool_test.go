package spool

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SPOOL_WRITER_DIR"); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

func writeForEver(dir string) {
	s, err := Open(context.Background(), dir)
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		f := finding(i)
		if _, err := s.Record(context.Background(), &f); err != nil {
			panic(err)
		}
		fmt.Println(f.ID) // said only after Record returned
	}
}

func finding(i int) threat.Finding {
	return threat.Finding{
		Workload: threat.Workload{ID: "container/c1"},
		Location: threat.Location{Path: fmt.Sprintf("/data/%d", i)},
		Object:   threat.Hash{1, byte(i)}, State: threat.Open, Time: time.Unix(int64(i), 0).UTC(),
	}
}

func open(t *testing.T, dir string) *Spool {
	t.Helper()
	s, err := Open(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestRecordMergesOccurrences(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := open(t, t.TempDir())
	first := finding(1)
	known, err := s.Record(ctx, &first)
	require.NoError(t, err)
	require.False(t, known)
	first.State = threat.Contained
	first.VaultID = "v1"
	first.Decisions = []threat.Decision{{Action: threat.Quarantine}}
	require.NoError(t, s.Update(ctx, &first))

	again := finding(1)
	known, err = s.Record(ctx, &again)
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, first.ID, again.ID)
	require.Equal(t, 2, again.Count)
	require.Equal(t, threat.Contained, again.State, "seen again does not reopen")
	require.Equal(t, "v1", again.VaultID)
	require.Len(t, again.Decisions, 1)

	require.NoError(t, s.Forget(ctx, first.ID))
	third := finding(1)
	known, err = s.Record(ctx, &third)
	require.NoError(t, err)
	require.False(t, known)
	require.NotEqual(t, first.ID, third.ID)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := open(t, t.TempDir())
	b, _, err := s.Next(ctx, 10)
	require.NoError(t, err)
	require.Empty(t, b.ID)

	f := finding(1)
	_, err = s.Record(ctx, &f)
	require.NoError(t, err)
	require.NoError(t, s.AddItem(ctx, api.QuarantineItem{ID: "i"}))
	require.NoError(t, s.AddResult(ctx, api.CommandResult{Command: "c"}))
	require.NoError(t, s.AddScan(ctx, api.Scan{ID: "s"}))
	b, seq, err := s.Next(ctx, 10)
	require.NoError(t, err)
	require.Len(t, b.Findings, 1)
	require.Len(t, b.Items, 1)
	require.Len(t, b.Results, 1)
	require.Len(t, b.Scans, 1)

	same, _, err := s.Next(ctx, 10)
	require.NoError(t, err)
	require.Equal(t, b.ID, same.ID, "a repeated upload carries the same id")

	// A newer version that arrives during the upload is not lost by its ack.
	f.State = threat.Contained
	require.NoError(t, s.Update(ctx, &f))
	require.NoError(t, s.Ack(ctx, seq))
	rest, _, err := s.Next(ctx, 10)
	require.NoError(t, err)
	require.Len(t, rest.Findings, 1)
	require.Equal(t, threat.Contained, rest.Findings[0].State)
}

// TestKill ends a writing process at random moments: every finding it was told
// is recorded must be there.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seen := map[string]bool{}
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SPOOL_WRITER_DIR="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if line := lines.Text(); len(line) == 26 {
				seen[line] = true
			}
			if n == 7+round*13 {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.ErrorContains(t, cmd.Wait(), "killed")
	}
	s := open(t, dir)
	b, _, err := s.Next(t.Context(), 100000)
	require.NoError(t, err)
	var have []string
	for _, f := range b.Findings {
		have = append(have, f.ID)
	}
	all := strings.Join(have, " ")
	for id := range seen {
		require.Contains(t, all, id)
	}
	require.NotEmpty(t, seen)
}

// TestProcessKept: an occurrence that does not know its process keeps the one
// before.
func TestProcessKept(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for _, c := range []struct{ pid, want int }{{7, 7}, {0, 7}, {8, 8}} {
		f := finding(1)
		f.Process = nil
		if c.pid != 0 {
			f.Process = &threat.Process{PID: c.pid}
		}
		_, err := s.Record(t.Context(), &f)
		require.NoError(t, err)
		require.Equal(t, c.want, f.Process.PID)
	}
}
