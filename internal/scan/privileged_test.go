//go:build privileged

package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan/cache"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/threat"
)

const inside = "LAZARET_TEST_MOUNT_NAMESPACE"

// ownMounts runs the test again in a child with a mount namespace of its own,
// and returns true in the child: whatever it mounts ends with it.
func ownMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return false
}

func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // may be gone already
}

func TestFullDisk(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	state, tree := t.TempDir(), t.TempDir()
	tmpfs(t, state, "size=512k")
	for i := range 3000 {
		write(t, fmt.Sprintf("%s/%d/%d", tree, i%10, i), fmt.Sprint(bad, i))
	}
	time.Sleep(2 * tick)
	f := newFake()
	s, conditions := newService(t, state, f)
	fill(t, state+"/filler")
	q := api.ScanRequest{Paths: []string{tree}}
	for range 2 {
		lines, sum := collect(t, newScanner(s), q, Options{})
		require.Len(t, lines, 3000)
		require.EqualValues(t, 3000, sum.Malicious)
		s.cache.Flush(context.Background())
	}
	require.NotEmpty(t, conditions.List())
	require.Equal(t, cache.ConditionWrite, conditions.List()[0].Code)
	require.EqualValues(t, 3000, f.calls.Load(), "memory still answers")
	require.NoError(t, unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT, "size=64m"))
	write(t, tree+"/new", "one more")
	collect(t, newScanner(s), q, Options{})
	s.cache.Flush(context.Background())
	require.Empty(t, conditions.List(), "space again")
}

// fill writes a file until the file system is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, f.Close())
}

func TestMounts(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	dir := t.TempDir()
	write(t, dir+"/plain", "harmless")
	tmpfs(t, dir+"/mnt", "size=1m")
	write(t, dir+"/mnt/bad", bad)
	require.NoError(t, os.Mkdir(dir+"/proc", 0o755))
	require.NoError(t, unix.Mount("proc", dir+"/proc", "proc", 0, ""))
	defer unix.Unmount(dir+"/proc", unix.MNT_DETACH)
	require.NoError(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	lines, sum := collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}, All: true}, Options{})
	require.Equal(t, threat.Malicious, lines[dir+"/mnt/bad"].Verdict)
	require.Equal(t, threat.ReasonNotRegular, lines[dir+"/proc"].Reasons[0].Code)
	require.EqualValues(t, 2, sum.Files)
	require.EqualValues(t, 2, sum.Skipped)
	one := &Scanner{Service: s, Targets: &target.Resolver{OneFileSystem: true}}
	_, sum = collect(t, one, api.ScanRequest{Paths: []string{dir}, All: true}, Options{})
	require.EqualValues(t, 1, sum.Files)
	require.Zero(t, sum.Malicious)
}

// A disk that goes away in the middle gives errors for what was not read.
func TestVanishedMount(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 32<<20))
	out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command("mount", "-o", "loop", image, dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for i := range 300 {
		write(t, fmt.Sprintf("%s/%03d/x", dir, i), fmt.Sprint("content ", i))
	}
	f := newFake()
	f.before = func(_ context.Context, content []byte) error {
		if string(content) == "content 20" {
			// EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h): every access fails from here on,
			// as when the disk is pulled.
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			return errors.Join(unix.IoctlSetPointerInt(int(d.Fd()), 0x8004587d, 2), unix.Unmount(dir, unix.MNT_DETACH))
		}
		return nil
	}
	s, _ := newService(t, t.TempDir(), f)
	lines, sum := collect(t, newScanner(s), api.ScanRequest{Paths: []string{dir}, All: true}, Options{})
	require.Positive(t, sum.Clean)
	require.Positive(t, sum.Errors, "%+v", sum)
	for _, l := range lines {
		if l.Verdict != threat.Clean {
			require.Contains(t, []string{threat.ReasonUnreadable, threat.ReasonEngineUnavailable}, l.Reasons[0].Code, "%+v", l)
		}
	}
}
