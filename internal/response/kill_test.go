package response

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// sleeper starts a process that does nothing for a minute.
func sleeper(t *testing.T) (*exec.Cmd, threat.Process) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	start, err := startTime(cmd.Process.Pid)
	require.NoError(t, err)
	return cmd, threat.Process{PID: cmd.Process.Pid, Start: start}
}

func TestKill(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cmd, p := sleeper(t)
	var k Killer

	other := p
	other.Start++
	require.ErrorIs(t, k.Kill(ctx, other), ErrGone, "a later process with the number")
	other.Start = 0
	require.ErrorContains(t, k.Kill(ctx, other), "start time is not known")
	for _, pid := range []int{-1, 0, 1, os.Getpid(), os.Getppid()} {
		require.ErrorIs(t, k.Kill(ctx, threat.Process{PID: pid, Start: 1}), ErrProtected)
	}
	own := Killer{Protected: func(pid int) bool { return pid == p.PID }}
	require.ErrorIs(t, own.Kill(ctx, p), ErrProtected)
	require.True(t, running(p.PID, p.Start))

	require.NoError(t, k.Kill(ctx, p))
	require.Error(t, cmd.Wait())
	require.ErrorIs(t, k.Kill(ctx, p), ErrGone)
}

// Process 2 is kthreadd wherever kernel threads are visible.
func TestKillRefusesKernelThreads(t *testing.T) {
	t.Parallel()
	flags, start, err := procStat(2)
	if err != nil || flags&flagKernelThread == 0 {
		require.ErrorIs(t, (&Killer{}).Kill(context.Background(), threat.Process{PID: 2, Start: 1 << 60}), ErrGone)
		return // a pid namespace of its own: there are none to refuse
	}
	require.ErrorIs(t, (&Killer{}).Kill(context.Background(), threat.Process{PID: 2, Start: start}), ErrProtected)
}
