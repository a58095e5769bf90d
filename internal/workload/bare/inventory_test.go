package bare

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}

func TestInventory(t *testing.T) {
	t.Parallel()
	groups, proc := t.TempDir(), t.TempDir()
	for pid, ns := range map[string]string{"1": "mnt:[1]", "10": "mnt:[2]", "20": "mnt:[3]", "30": "mnt:[1]"} {
		require.NoError(t, os.MkdirAll(filepath.Join(proc, pid, "ns"), 0o755))
		require.NoError(t, os.Symlink(ns, filepath.Join(proc, pid, "ns/mnt")))
	}
	write(t, filepath.Join(groups, "cgroup.procs"), "1\n")
	write(t, filepath.Join(groups, "docker", id, "cgroup.procs"), "10\n")
	write(t, filepath.Join(groups, "default/t1/cgroup.procs"), "20\n")
	write(t, filepath.Join(groups, "my/service/cgroup.procs"), "30\n")
	inv, err := New(Config{Cgroups: groups, Proc: proc, Interval: 10 * time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inv.Run(ctx) }()
	require.Eventually(t, func() bool { return inv.State() == nil }, 20*time.Second, time.Millisecond)
	e, ok := inv.Entry(id)
	require.True(t, ok)
	require.Equal(t, "docker", e.Runtime)
	require.Equal(t, 10, e.PID)
	_, ok = inv.Entry("t1")
	require.True(t, ok)
	require.Len(t, inv.Entries(), 2, "a service in the host's mount namespace is no container")

	write(t, filepath.Join(groups, "docker", id, "cgroup.procs"), "")
	require.Eventually(t, func() bool { return len(inv.Entries()) == 1 }, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}
