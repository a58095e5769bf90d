//go:build privileged

package containerdtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ownerDir = "LAZARET_TEST_OWNER_DIR"

// TestOwner is the process that TestOwnerIsKilled kills; on its own it does
// nothing.
func TestOwner(t *testing.T) {
	dir := os.Getenv(ownerDir)
	if dir == "" {
		return
	}
	rt, err := Start(t.Context(), Config{Dir: dir})
	require.NoError(t, err)
	image, err := rt.Image(t.Context(), "localhost/lazaret/test:1")
	require.NoError(t, err)
	_, err = rt.Run(t.Context(), "left", image.Name)
	require.NoError(t, err)
	fmt.Println("namespace", rt.Namespace)
	select {}
}

// A test that dies in whatever way must leave nothing on the machine.
func TestOwnerIsKilled(t *testing.T) {
	dir, err := os.MkdirTemp("", "lzo")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cmd := exec.Command(os.Args[0], "-test.run=^TestOwner$")
	cmd.Env = append(os.Environ(), ownerDir+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	namespace := ""
	for s := bufio.NewScanner(out); namespace == "" && s.Scan(); {
		if ns, ok := strings.CutPrefix(s.Text(), "namespace "); ok {
			namespace = ns
		}
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.NotEmpty(t, namespace, "the owner did not get so far")
	require.Eventually(t, func() bool {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + namespace)
		left := strings.Contains(string(mounts), dir) || len(groups) > 0
		for _, p := range processes(t) {
			left = left || strings.Contains(p, dir)
		}
		return err == nil && !left
	}, 60*time.Second, 100*time.Millisecond)
}
