package node

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOwn: the processes that the service starts are its own, nobody else's.
func TestOwn(t *testing.T) {
	t.Parallel()
	leader := exec.Command("/bin/sh", "-c", "sleep 60 & echo $!; wait")
	leader.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	out, err := leader.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, leader.Start())
	t.Cleanup(func() { _ = syscall.Kill(-leader.Process.Pid, syscall.SIGKILL); _ = leader.Wait() })
	var child int
	_, err = fmt.Fscan(out, &child)
	require.NoError(t, err)

	ours := own(os.Getppid(), leader.Process.Pid)
	require.True(t, ours(leader.Process.Pid))
	require.True(t, ours(child), "a worker")
	require.True(t, ours(os.Getppid()), "the supervisor")
	require.False(t, ours(os.Getpid()), "of another session")
	require.False(t, ours(0), "outside of the pid namespace")
	require.False(t, own(0, os.Getpid())(0))
}
