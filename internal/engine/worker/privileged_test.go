//go:build privileged

package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// What the kernel says about a worker that root has started.
func TestWorkerIsLockedDown(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test needs root")
	p := newPool(t, nil)
	inspect(t, p, "fine", engine.Limits{})
	pid := p.slots[0].current.Load().pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	fields := map[string]string{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	for name, want := range map[string]string{
		"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "Groups": "",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		require.Equal(t, want, fields[name], name)
	}
	for _, ns := range []string{"net", "ipc", "mnt", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		require.NoError(t, err)
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		require.NoError(t, err)
		require.NotEqual(t, ours, theirs, "the worker shares our %s namespace", ns)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	require.NoError(t, err)
	for _, want := range []string{"Max core file size 0 0", "Max file size 0 0", "Max open files 64 64", "Max locked memory 0 0"} {
		require.Contains(t, strings.Join(strings.Fields(string(limits)), " "), want)
	}
	// Nothing but standard streams, the socket and what Go's poller needs.
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	for _, d := range descriptors {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, d.Name()))
		require.NoError(t, err)
		known := target == "/dev/null" || strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "socket:") ||
			strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/other.yarc")
		require.True(t, known, "the worker holds %s", target)
	}
}

// A plain user gets the same protection as far as the machine allows.
func TestPlainUser(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test needs root")
	dir, err := os.MkdirTemp("/tmp", "lazaret-plain-") // a place others can reach
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	for name, content := range map[string]string{"other.yarc": "rules", manifestName: `{"files":{"other.yarc":""}}`, "file": "fine"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	program, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "program"), program, 0o755))
	cmd := exec.Command(filepath.Join(dir, "program"), "fake-user", dir)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	out, err := cmd.Output()
	require.NoError(t, err)
	var got struct {
		Result engine.Result
		Stats  Stats
	}
	require.NoError(t, json.Unmarshal(out, &got))
	require.Equal(t, threat.Clean, got.Result.Verdict())
	require.True(t, got.Stats.Ready.Sandbox.Seccomp)
	require.Positive(t, got.Stats.Ready.Sandbox.Landlock)
	if got.Stats.Ready.Sandbox.Namespaces {
		require.Equal(t, nobody, got.Stats.Ready.Sandbox.User)
	}
}
