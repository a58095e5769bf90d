package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workEnv tells the enclosed process its working directory.
const workEnv = "LAZARET_BENCH_WORK"

// enclose runs this program again in name spaces of its own: when the inner
// process ends, the kernel ends everything it started (a fanotify group that
// nobody answers would hang its openers) and its mounts are gone.
func enclose(ctx context.Context, dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("mounting file systems and watching them needs root: sudo make bench")
	}
	work, err := os.MkdirTemp(dir, "lazaret-bench-")
	if err != nil {
		return fmt.Errorf("making the working directory: %w", err)
	}
	runtime.LockOSThread() // Pdeathsig follows the thread that starts the child
	c := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), workEnv+"="+work)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC, Pdeathsig: unix.SIGKILL,
	}
	c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
	c.WaitDelay = 30 * time.Second
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = exited(exit.ExitCode())
	}
	if gone := os.RemoveAll(work); gone != nil {
		return errors.Join(err, gone)
	}
	return err
}

// exited is the exit code of the inner process.
type exited int

func (e exited) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// settleIn makes the new name spaces private and gives them their own /proc.
func settleIn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}
