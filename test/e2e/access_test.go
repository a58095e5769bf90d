//go:build privileged

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// a file with the test file's content but its first letter.
func almost(n int) string { return "?" + eicar(n)[1:] }

// testDenied: open, execution and an open through io_uring fail in a
// container; the finding is there when the open has failed.
func testDenied(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(10), "/tmp/bad"))
	require.Equal(t, "ok", act(t, c, "write:hello", "/tmp/good"))
	for _, verb := range []string{"open", "uring", "exec"} {
		require.Equal(t, "EPERM", act(t, c, verb, "/tmp/bad"), verb)
	}
	for _, verb := range []string{"open", "uring"} {
		require.Equal(t, "ok", act(t, c, verb, "/tmp/good"), verb)
	}
	// The write and the first access are recorded, in whatever order.
	f := s.finding(t, c, "/tmp/bad", func(f *threat.Finding) bool { return f.Count > 1 && result(f, threat.Deny) != "" })
	require.Equal(t, imageClean, f.Workload.Image)
	require.Equal(t, threat.KindContainer, f.Workload.Kind)
	require.Equal(t, "deny", f.Policy)
	require.Equal(t, threat.Malicious, f.Verdict)
	require.NotEmpty(t, f.Detections)
	require.Equal(t, "upper", f.Location.Layer)
	require.Equal(t, "done", result(&f, threat.Deny))
	require.Positive(t, f.Epoch)
	require.Equal(t, "stand", f.Node)
	require.NotNil(t, f.Process, "who wanted it")
}

// testLowerLayer: a malicious file of the image is denied from the first
// access of a container on, and stays: other containers share it.
func testLowerLayer(t *testing.T, s *stand) {
	c := s.container(t, imageBad, "take")
	for _, verb := range []string{"open", "exec", "uring"} {
		require.Equal(t, "EPERM", act(t, c, verb, "/opt/lower"), verb)
	}
	f := s.finding(t, c, "/opt/lower", func(f *threat.Finding) bool { return result(f, threat.Quarantine) != "" })
	require.Equal(t, "failed", result(&f, threat.Quarantine))
	require.Contains(t, f.Decisions[len(f.Decisions)-1].Detail, "image infected")
	require.True(t, strings.HasPrefix(f.Location.Layer, "sha256:"), f.Location.Layer)
	require.Equal(t, imageBad, f.Location.Image)
	require.Empty(t, f.VaultID)
	require.Equal(t, "EPERM", act(t, c, "open", "/opt/lower"), "it is still there and still denied")
}

// testEntrypoint: a container whose own program is malicious does not run it,
// and the finding names the container although its runtime has hardly heard of
// it.
func testEntrypoint(t *testing.T, s *stand) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := s.rt.RunSpec(ctx, containerdtest.Spec{
		ID: "entrypoint", Image: imageBad, Args: []string{"/opt/lower"}, Labels: map[string]string{labelName: "deny"},
	})
	require.NoError(t, err, "the runtime reports the start before the program is executed")
	t.Cleanup(func() { require.NoError(t, c.Stop(context.Background())) })
	s.within(t, 10*time.Second, "the container ends", func() bool {
		list, err := s.rt.Ctr(ctx, "task", "ls")
		return err == nil && strings.Contains(list, "STOPPED")
	})
	f := s.finding(t, c, "/opt/lower", func(*threat.Finding) bool { return true })
	require.Equal(t, "exec", f.Trigger)
	require.Equal(t, "deny", f.Policy, "by its labels")
	require.Equal(t, imageBad, f.Workload.Image)
	out, err := c.Output()
	require.NoError(t, err)
	require.Contains(t, out, "operation not permitted")
}

// testBindMount: a file in a volume is denied and taken like any other.
func testBindMount(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(11), "/srv/bad"))
	for _, verb := range []string{"open", "exec", "uring"} {
		require.Equal(t, "EPERM", act(t, c, verb, "/srv/bad"), verb)
	}
	f := s.finding(t, c, "/srv/bad", func(*threat.Finding) bool { return true })
	require.Equal(t, s.bind+"/bad", f.Location.HostPath)
	require.Empty(t, f.Location.Layer)

	taker := s.container(t, imageClean, "take")
	require.Equal(t, "ok", act(t, taker, "write:"+eicar(12), "/srv/taken"))
	s.finding(t, taker, "/srv/taken", func(f *threat.Finding) bool { return f.State == threat.Contained })
	require.NoFileExists(t, s.bind+"/taken")
}

// testSharedMapping: a store through a shared mapping, which no file event
// reports, makes a clean and remembered file be inspected again.
func testSharedMapping(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	require.Equal(t, "ok", act(t, c, "write:"+almost(13), "/tmp/mapped"))
	time.Sleep(1200 * time.Millisecond) // old enough to be remembered by the kernel
	for range 3 {
		require.Equal(t, "ok", act(t, c, "open", "/tmp/mapped"))
	}
	require.Equal(t, "ok", act(t, c, "store", "/tmp/mapped"))
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/mapped"))
	require.Equal(t, "EPERM", act(t, c, "uring", "/tmp/mapped"))
	s.finding(t, c, "/tmp/mapped", func(*threat.Finding) bool { return true })
}
