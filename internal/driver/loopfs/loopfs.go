// Package loopfs gives privileged tests file systems of their own: loop mounts
// of ext4, xfs and btrfs and overlays on them, in a private mount name space
// that ends with the test. Permission marks are put only on these.
package loopfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const envInside = "LAZARET_TEST_MOUNT_NAMESPACE"

// Main runs the tests of m in a private mount name space, by starting the test
// program again in one. It returns the exit code.
func Main(m *testing.M) int {
	if os.Getenv(envInside) == "" {
		runtime.LockOSThread() // Pdeathsig follows the thread that starts the child
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), envInside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() > 0 {
				return exit.ExitCode()
			}
			fmt.Fprintln(os.Stderr, "running in a private mount name space:", err)
			return 1
		}
		return 0
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "making mounts private:", err)
		return 1
	}
	return m.Run()
}

// sizes of the sparse images in MiB: the least that mkfs takes, with room.
var sizes = map[string]int64{"ext4": 128, "xfs": 320, "btrfs": 160}

// Kinds are the file systems that New makes.
func Kinds() []string { return []string{"ext4", "xfs", "btrfs"} }

// New makes a file system of a kind and mounts it; both end with the test.
func New(t testing.TB, kind string) string {
	t.Helper()
	size, ok := sizes[kind]
	if !ok {
		t.Fatalf("unknown file system %q", kind)
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	check(t, os.Mkdir(mnt, 0o755))
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, size<<20))
	force := map[string]string{"ext4": "-F", "xfs": "-f", "btrfs": "-f"}[kind]
	run(t, "mkfs."+kind, force, "-q", image)
	run(t, "mount", "-o", "loop", "-t", kind, image, mnt)
	t.Cleanup(func() { unmount(t, mnt) })
	return mnt
}

// Overlay mounts an overlay with the given lower directory; the upper and work
// directories are made beside it, on the same file system.
func Overlay(t testing.TB, lower string) (merged, upper string) {
	t.Helper()
	merged = filepath.Join(t.TempDir(), "merged")
	upper = lower + "-upper"
	work := lower + "-work"
	for _, d := range []string{merged, upper, work} {
		check(t, os.Mkdir(d, 0o755))
	}
	check(t, unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)))
	t.Cleanup(func() { unmount(t, merged) })
	return merged, upper
}

// Bind mounts a file or directory at a second place.
func Bind(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "bind")
	if fi, err := os.Stat(from); err == nil && fi.IsDir() {
		check(t, os.Mkdir(to, 0o755))
	} else {
		check(t, os.WriteFile(to, nil, 0o600))
	}
	check(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unmount(t, to) })
	return to
}

// unmount waits a moment for descriptors that are just being closed.
func unmount(t testing.TB, mnt string) {
	var err error
	for range 100 {
		if err = unix.Unmount(mnt, 0); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("unmounting %s: %v", mnt, err)
	_ = unix.Unmount(mnt, unix.MNT_DETACH)
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
