package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/driver/fanotify"
)

// Environment variables that tell the service its inherited descriptors.
const (
	envGroup   = "LAZARET_SUPERVISOR_GROUP"
	envControl = "LAZARET_SUPERVISOR_CONTROL"
	envBeat    = "LAZARET_SUPERVISOR_BEAT"
)

// noGroup is sent when the kernel or the privileges offer no group.
const noGroup = -1

// ErrNoSupervisor says that the process was not started by a supervisor.
var ErrNoSupervisor = errors.New("not started by a supervisor")

// Gap counts what happened while no service was there to decide.
type Gap struct {
	Allowed uint64 // accesses that the supervisor allowed without inspection
	Denied  uint64 // accesses that it denied without inspection
	Writes  uint64 // closed writes that nobody was told about
}

// Child is the service's side of a supervisor.
type Child struct {
	group   *fanotify.Group
	control int
	beat    time.Duration
}

// Attach finds the group and the control socket that the supervisor passed. It
// returns ErrNoSupervisor if there is none. The caller closes the child.
func Attach() (*Child, error) {
	g, c := os.Getenv(envGroup), os.Getenv(envControl)
	if g == "" || c == "" {
		return nil, ErrNoSupervisor
	}
	groupFD, err1 := strconv.Atoi(g)
	control, err2 := strconv.Atoi(c)
	beat, err3 := time.ParseDuration(os.Getenv(envBeat))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("attaching to the supervisor: %w", err)
	}
	for _, name := range []string{envGroup, envControl, envBeat} {
		_ = os.Unsetenv(name) // workers must not believe that they have them
	}
	unix.CloseOnExec(control)
	child := &Child{control: control, beat: beat}
	if groupFD == noGroup {
		return child, nil
	}
	if child.group, err1 = fanotify.Inherit(groupFD); err1 != nil {
		return nil, fmt.Errorf("attaching to the supervisor: %w", err1)
	}
	return child, nil
}

// Group returns the fanotify group, nil if the supervisor could not open one;
// it stays the child's.
func (c *Child) Group() *fanotify.Group { return c.group }

// Ready asks the supervisor to stop reading the group and waits until it has:
// two readers would mix up each other's answers. It returns what happened to
// accesses meanwhile; anything allowed must be scanned again. Call it before
// the driver runs, and run the driver at once.
func (c *Child) Ready(ctx context.Context) (Gap, error) {
	if err := send(c.control, message{kind: kindReady}); err != nil {
		return Gap{}, fmt.Errorf("telling the supervisor: %w", err)
	}
	for ctx.Err() == nil {
		m, err := receive(c.control, 100*time.Millisecond)
		switch {
		case errors.Is(err, unix.ETIMEDOUT):
		case err != nil:
			return Gap{}, fmt.Errorf("waiting for the supervisor: %w", err)
		case m.kind == kindGap:
			return Gap{Allowed: m.a, Denied: m.b, Writes: m.c}, nil
		}
	}
	return Gap{}, fmt.Errorf("waiting for the supervisor: %w", ctx.Err())
}

// SetMode tells the supervisor what to do should this process vanish.
func (c *Child) SetMode(m Mode) error {
	if err := send(c.control, m.message()); err != nil {
		return fmt.Errorf("telling the supervisor the fail mode: %w", err)
	}
	return nil
}

// Run sends heartbeats while healthy says so (nil: always), until ctx ends. A
// service without heartbeats is killed. A dead supervisor ends the service:
// without it a crash would leave the machine unprotected unnoticed.
func (c *Child) Run(ctx context.Context, healthy func() bool) error {
	t := time.NewTicker(c.beat)
	defer t.Stop()
	for {
		if healthy == nil || healthy() {
			if err := send(c.control, message{kind: kindHeartbeat}); err != nil && !errors.Is(err, unix.EAGAIN) {
				return fmt.Errorf("sending a heartbeat to the supervisor: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Close closes the inherited descriptors.
func (c *Child) Close() error {
	err := unix.Close(c.control)
	if c.group != nil {
		err = errors.Join(err, c.group.Close())
	}
	return err
}
