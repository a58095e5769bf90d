//go:build privileged

package manager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/audit"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestFullDisk fills the file system that holds the manager's state. Uploads
// are refused with a clear answer, a condition says so, what was acknowledged
// stays, and the manager goes on when there is room again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	mountpoint := filepath.Join(dir, "small")
	require.NoError(t, os.Mkdir(mountpoint, 0o700))
	require.NoError(t, unix.Mount("tmpfs", mountpoint, "tmpfs", 0, "size=32m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mountpoint, unix.MNT_DETACH)) })

	m := newManager(t, mountpoint)
	m.Socket = filepath.Join(dir, "m.sock")
	stop := start(t, m)
	c, err := api.NewClient(api.ClientConfig{Socket: m.Socket})
	require.NoError(t, err)
	ballast := filepath.Join(mountpoint, "ballast")
	upload := func(id string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		f := testFinding("F"+id, "")
		f.Location.Path = strings.Repeat("x", 50000)
		return c.Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{ID: id, Findings: []threat.Finding{f}}, nil)
	}
	require.NoError(t, upload("0000"))
	require.NoError(t, os.WriteFile(ballast, make([]byte, 20<<20), 0o600))
	acked := []string{"0000"}
	var p *api.Problem
	for i := 1; i < 500 && p == nil; i++ {
		id := fmt.Sprintf("%04d", i)
		switch err := upload(id); {
		case err == nil:
			acked = append(acked, id)
		case !errors.As(err, &p):
			t.Fatal(err)
		}
	}
	require.NotNil(t, p, "the disk was never full")
	require.Equal(t, 503, p.Status, p.Detail)
	require.Contains(t, p.Detail, "full")
	require.NotEmpty(t, m.Conditions.List())

	require.NoError(t, os.Remove(ballast))
	require.Eventually(t, func() bool { return upload("9999") == nil }, 10*time.Second, 100*time.Millisecond)
	require.Eventually(t, func() bool { return len(m.Conditions.List()) == 0 }, 10*time.Second, 100*time.Millisecond)
	require.NoError(t, stop())
	for _, id := range append(acked, "9999") {
		_, err := m.store.Finding(t.Context(), "F"+id)
		require.NoError(t, err)
	}
	require.NoError(t, m.appender.Flush(t.Context()))
	require.NoError(t, m.Close())
	rep, err := audit.Verify(filepath.Join(mountpoint, "audit"), audit.Options{})
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
}
