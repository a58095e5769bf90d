package response

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// ErrProtected says that a process is never killed: process 1, kernel threads
// and our own.
var ErrProtected = errors.New("this process is never killed")

// Killer ends processes.
type Killer struct {
	// Protected reports further processes of our own, such as engine workers;
	// may be nil.
	Protected func(pid int) bool
}

// killWait is how long Kill waits for the process to be gone.
const killWait = 2 * time.Second

// Kill ends the process with SIGKILL and waits up to two seconds for it to be
// gone. The process is named by pid and start time and held by a pidfd, so
// that no later process with that number is hit. ErrGone means that it had
// ended before.
func (k *Killer) Kill(ctx context.Context, p threat.Process) error {
	fail := func(err error) error { return fmt.Errorf("killing process %d: %w", p.PID, err) }
	if p.PID <= 1 || p.PID == os.Getpid() || p.PID == os.Getppid() || (k.Protected != nil && k.Protected(p.PID)) {
		return fail(ErrProtected)
	}
	if p.Start == 0 {
		return fail(errors.New("its start time is not known, so it may be another process by now"))
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return fail(classify(err))
	}
	defer unix.Close(fd)
	// Read after the pidfd was opened: if the start time is right now, the pidfd
	// is that of the process that is meant.
	flags, start, err := procStat(p.PID)
	if errors.Is(err, os.ErrNotExist) || (err == nil && start != p.Start) {
		return fail(ErrGone)
	}
	if err != nil {
		return fail(classify(err))
	}
	if flags&flagKernelThread != 0 {
		return fail(ErrProtected)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return fail(classify(err))
	}
	if err := waitExit(ctx, fd); err != nil {
		return fail(err)
	}
	return nil
}

// waitExit waits for a pidfd to become readable, pidfd_open(2).
func waitExit(ctx context.Context, fd int) error {
	end := time.Now().Add(killWait)
	for time.Now().Before(end) && ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return errors.New("SIGKILL was sent, the process has not ended yet")
}
