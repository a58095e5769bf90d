//go:build privileged

package response

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// isolate runs the rest of the test in a child with a mount namespace of its
// own, so that its mounts end with it. It returns false in the parent.
func isolate(t *testing.T) bool {
	if os.Getenv("LAZARET_ISOLATED") != "" {
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "LAZARET_ISOLATED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "it ran in the child")
	return false
}

func mountTmpfs(t *testing.T, dir, options string) {
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

type testContainer struct {
	dir  string
	pid  int
	stop func()
}

// path, upper and lower return where a container path is.
func (c *testContainer) upper(path string) string { return filepath.Join(c.dir, "upper", path) }
func (c *testContainer) lower(path string) string { return filepath.Join(c.dir, "lower", path) }
func (c *testContainer) merged(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", c.pid, path)
}

func (c *testContainer) target(t *testing.T, path string) Target {
	start, err := startTime(c.pid)
	require.NoError(t, err)
	return Target{PID: c.pid, Start: start, Path: path}
}

func startContainer(t *testing.T, writable bool) *testContainer {
	dir := filepath.Join(realTempDir(t), "layers, with: signs")
	mountTmpfs(t, dir, "")
	for _, d := range []string{"lower/etc", "lower/volume", "lower/readonly", "upper", "work", "merged", "volume"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	writeFile(t, filepath.Join(dir, "lower/etc/infected"), "bad in image")
	writeFile(t, filepath.Join(dir, "lower/etc/changed"), "from image")
	writeFile(t, filepath.Join(dir, "volume/f"), "bad in volume")
	escaped := func(name string) string {
		var out []rune
		for _, r := range filepath.Join(dir, name) {
			if r == ',' || r == ':' {
				out = append(out, '\\')
			}
			out = append(out, r)
		}
		return string(out)
	}
	options := "lowerdir=" + escaped("lower")
	if writable {
		options += ",upperdir=" + escaped("upper") + ",workdir=" + escaped("work")
	} else {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "lower2"), 0o755))
		options += ":" + escaped("lower2")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LAZARET_CONTAINER_DIR="+dir, "LAZARET_CONTAINER_OPTIONS="+options)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	c := &testContainer{dir: dir, pid: cmd.Process.Pid}
	c.stop = func() { in.Close(); cmd.Wait(); c.stop = func() {} }
	t.Cleanup(func() { c.stop() })
	return c
}

func take(v *Vault, t Target) (Item, error) {
	o, err := OpenOriginal(t)
	if err != nil {
		return Item{}, err
	}
	defer o.Close()
	return v.Quarantine(context.Background(), o, Meta{})
}

func TestContainerFiles(t *testing.T) {
	if !isolate(t) {
		return
	}
	v := newVault(t, realTempDir(t))
	c := startContainer(t, true)
	require.NoError(t, os.WriteFile(c.merged("/etc/own"), []byte("bad"), 0o755))
	require.NoError(t, os.WriteFile(c.merged("/etc/changed"), []byte("bad copy"), 0o755))
	require.FileExists(t, c.upper("etc/own"))

	// A file of the container's own layer.
	item, err := take(v, c.target(t, "/etc/own"))
	require.NoError(t, err)
	require.NoFileExists(t, c.merged("/etc/own"))
	require.NoFileExists(t, c.upper("etc/own"))
	r, err := v.Restore(context.Background(), item.ID, RestoreOptions{Target: c.target(t, "/etc/own"), Rescan: verdict(threat.Clean)})
	require.NoError(t, err)
	require.Equal(t, "/etc/own", r.Path)
	b, err := os.ReadFile(c.upper("etc/own"))
	require.NoError(t, err)
	require.Equal(t, "bad", string(b))
	requireNoHidden(t, c.merged("/etc"))

	// A file of the image, known only from the mount table.
	_, err = take(v, c.target(t, "/etc/infected"))
	require.ErrorIs(t, err, ErrImageLayer)
	require.FileExists(t, c.merged("/etc/infected"))
	require.NoFileExists(t, c.upper("etc/infected"), "not even copied up")

	// A file of the image that the container changed.
	_, err = take(v, c.target(t, "/etc/changed"))
	require.NoError(t, err)
	require.NoFileExists(t, c.merged("/etc/changed"))
	require.FileExists(t, c.lower("etc/changed"))

	// Volumes.
	_, err = take(v, c.target(t, "/readonly/f"))
	require.ErrorIs(t, err, ErrReadOnly)
	require.FileExists(t, filepath.Join(c.dir, "volume/f"))
	item, err = take(v, c.target(t, "/volume/f"))
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(c.dir, "volume/f"))
	_, err = v.Restore(context.Background(), item.ID, RestoreOptions{Target: c.target(t, "/readonly/f"), Rescan: verdict(threat.Clean)})
	require.ErrorIs(t, err, ErrReadOnly)
	require.Equal(t, "bad in volume", readItem(t, v, item.ID))

	// The host's own root has no such file and is never looked at.
	_, err = take(v, c.target(t, "/volume/f"))
	require.ErrorIs(t, err, ErrGone)
}

func TestContainerWithoutUpperLayer(t *testing.T) {
	if !isolate(t) {
		return
	}
	c := startContainer(t, false)
	_, err := take(newVault(t, realTempDir(t)), c.target(t, "/etc/infected"))
	require.ErrorIs(t, err, ErrImageLayer)
}

// The container ends between the rename and the unlink of a crashed removal:
// recovery finds the file by its backing path.
func TestRecoveryAfterTheContainerEnded(t *testing.T) {
	if !isolate(t) {
		return
	}
	state := realTempDir(t)
	v := newVault(t, state)
	c := startContainer(t, true)
	require.NoError(t, os.WriteFile(c.merged("/etc/own"), []byte("bad"), 0o755))
	target := c.target(t, "/etc/own")
	target.HostPath = c.upper("etc/own")
	v.step = func(s string) {
		if s == "remove: verified" {
			panic("crash")
		}
	}
	require.Panics(t, func() { take(v, target) })
	require.NoError(t, v.Close())
	hidden, err := filepath.Glob(c.upper("etc/.lazaret-*"))
	require.NoError(t, err)
	require.Len(t, hidden, 1)
	c.stop()
	require.Eventually(t, func() bool { return !running(target.PID, target.Start) }, 5*time.Second, 10*time.Millisecond)

	v, err = OpenVault(context.Background(), VaultConfig{Dir: state})
	require.NoError(t, err)
	defer v.Close()
	recovered, err := v.Recover(context.Background())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	require.True(t, recovered[0].Done)
	require.NoFileExists(t, hidden[0])
	require.Equal(t, "bad", readItem(t, v, recovered[0].Item.ID))
}
