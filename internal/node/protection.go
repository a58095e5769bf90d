package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/driver/fanotify"
	"github.com/lazaret/lazaret/internal/driver/writeback"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
)

// protection is on-access protection: the drivers, and which file systems they
// watch.
type protection struct {
	n       *Node
	driver  *fanotify.Driver
	watcher *writeback.Watcher
	mode    fanotify.OverlayMode
	wanted  []string // paths of the configuration
	changed chan struct{}
}

func newProtection(n *Node) (*protection, error) {
	p := &protection{n: n, wanted: n.cfg.Protect.Paths, changed: make(chan struct{}, 1), mode: fanotify.Unknown}
	scratch := filepath.Join(n.dir, "probe")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, err
	}
	caps, err := fanotify.Probe(scratch)
	if err != nil {
		return nil, err
	}
	for _, c := range caps.Conditions() {
		n.cfg.Conditions.Raise(c)
	}
	p.mode = caps.Overlay
	if n.cfg.Group == nil {
		n.cfg.Conditions.Raise(threat.Condition{
			Code: fanotify.ConditionUnavailable, Severity: threat.Critical,
			Text:   "There is no on-access protection: this process has no fanotify group.",
			Advice: "Start it with `lazaret up` as root on a kernel with fanotify permission events (5.1 or newer).",
		})
		return p, nil
	}
	return p, p.open()
}

func (p *protection) open() error {
	c := fanotify.Config{
		Group: p.n.cfg.Group, Handler: p.n.guard, Deadline: p.n.cfg.Failure.Deadline,
		FailClosed: p.n.cfg.Failure.Mode == "closed", Overlay: p.mode, Conditions: p.n.cfg.Conditions, Logger: p.n.cfg.Logger,
		Own: own(os.Getppid(), os.Getpid()),
		Clean: func(k event.FileKey) bool {
			r, ok := p.n.scans.Lookup(k)
			return ok && r.Verdict == threat.Clean
		},
	}
	watcher, err := writeback.New(writeback.Config{
		Changed: func(dev uint32, ino uint64) { p.driver.Changed(dev, ino) },
		Lost:    func() { p.driver.ForgetAll() },
		Logger:  p.n.cfg.Logger,
	})
	var unsupported *writeback.UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		p.n.cfg.Logger.Warn("stores through shared mappings are not watched", slog.Any("error", err))
	case err != nil:
		return err
	default:
		p.watcher, c.Watcher = watcher, watcher
		p.n.closers = append(p.n.closers, watcher)
	}
	p.driver, err = fanotify.New(c)
	if err != nil {
		return err
	}
	p.n.signatures.onChange = p.driver.ForgetAll
	return nil
}

// own reports the supervisor and the processes of the session that the service
// leads: a new engine worker would wait for a verdict that only it can give.
// Nobody can join another's session (setsid(2)), and workers execute nothing
// once they have seen content.
func own(supervisor, session int) func(pid int) bool {
	return func(pid int) bool {
		if pid <= 0 { // outside of our pid namespace; to getsid(2) it is ourselves
			return false
		}
		sid, err := unix.Getsid(pid)
		return pid == supervisor || err == nil && sid == session
	}
}

// Run watches until ctx ends. The marks of a service before this one are still
// there; from Started on this driver answers for them. What is configured is
// marked before, so that "ready" means protected.
func (p *protection) Run(ctx context.Context) error {
	if p.driver != nil {
		p.mark(ctx)
	}
	if p.n.cfg.Started != nil {
		if err := p.n.cfg.Started(ctx); err != nil {
			return err
		}
	}
	if p.driver == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	runs := []func(context.Context) error{p.driver.Run, p.follow}
	if p.watcher != nil {
		runs = append(runs, p.watcher.Run)
	}
	return task.Run(ctx, runs...)
}

// healthy reports whether the driver's reader turned lately.
func (p *protection) healthy() bool {
	return p.driver == nil || time.Since(p.driver.Beat()) < 5*time.Second || p.driver.Beat().UnixNano() == 0
}

// Changed makes the protection look for new file systems soon.
func (p *protection) Changed() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// follow marks file systems as containers come and mounts appear.
func (p *protection) follow(ctx context.Context) error {
	for {
		p.mark(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.changed:
		case <-time.After(5 * time.Second):
		}
	}
}

// mark protects what is not protected yet. Marking a file system again costs
// next to nothing.
func (p *protection) mark(ctx context.Context) {
	var failed error
	for _, path := range p.paths(ctx) {
		if err := p.driver.Protect(path); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		p.n.cfg.Conditions.Raise(threat.Condition{
			Code: "not_protected", Severity: threat.High,
			Text:   "A file system is not protected: " + failed.Error(),
			Advice: "Correct protect.paths of the configuration, or mount what is missing; it is tried again every few seconds.",
		})
	} else {
		p.n.cfg.Conditions.Clear("not_protected")
	}
	if len(p.driver.Protected()) == 0 && failed == nil {
		p.n.cfg.Conditions.Raise(threat.Condition{
			Code: "nothing_protected", Severity: threat.High,
			Text:   "No file system is protected: no container runtime was found and the configuration names no paths.",
			Advice: "Name a place: lazaret up --protect /srv, or protect.paths in the configuration.",
		})
	} else {
		p.n.cfg.Conditions.Clear("nothing_protected")
	}
}

func (p *protection) paths(ctx context.Context) []string {
	paths := slices.Clone(p.wanted)
	if p.n.cfg.Protect.Containers == "off" || !p.n.runtime() {
		return paths
	}
	if p.mode == fanotify.Overlay {
		// Old kernels: each container's overlay gets its own mark.
		for _, e := range p.n.who.Entries() {
			if e.PID > 0 {
				paths = append(paths, fmt.Sprintf("/proc/%d/root", e.PID))
			}
		}
		return paths
	}
	backing, err := p.n.who.Backing()
	if err != nil {
		p.n.cfg.Logger.WarnContext(ctx, "file systems of containers were not all found", slog.Any("error", err))
	}
	for _, fs := range backing {
		paths = append(paths, fs.Point)
	}
	return paths
}
