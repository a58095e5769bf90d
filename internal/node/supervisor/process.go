package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// process is one run of the service.
type process struct {
	cmd     *exec.Cmd
	pid     int
	control int
	exited  chan struct{}
}

func (p *process) status() string { return p.cmd.ProcessState.String() }

// start starts the service in a session of its own.
func (s *Supervisor) start() (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("creating the control socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer func() { _ = theirs.Close() }()

	cmd := exec.Command(s.cfg.Command[0], s.cfg.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.null, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = s.cfg.Env
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.ExtraFiles = []*os.File{theirs}
	group := noGroup
	if s.guard != nil {
		group = 4
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.cfg.Group.File())
		if err := s.guard.exempt(s.cfg.Command[0]); err != nil {
			s.cfg.Logger.Warn("service program not exempted", slog.Any("error", err))
		}
		s.guard.session.Store(0)
	}
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)],
		envControl+"=3", envGroup+"="+strconv.Itoa(group), envBeat+"="+s.cfg.Heartbeat.String())
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", s.cfg.Command[0], err), unix.Close(pair[0]))
	}
	p := &process{cmd: cmd, pid: cmd.Process.Pid, control: pair[0], exited: make(chan struct{})}
	if s.guard != nil {
		s.guard.session.Store(int64(p.pid))
	}
	go func() {
		_ = cmd.Wait() // the status is read later
		close(p.exited)
	}()
	return p, nil
}

// watch listens to the service until it has exited and is reaped.
func (s *Supervisor) watch(ctx context.Context, p *process) {
	defer func() { _ = unix.Close(p.control) }()
	var (
		began    = time.Now()
		deadline = began.Add(s.cfg.Startup)
		stopping = ctx.Done()
		deaf     bool // the service closed its end
	)
	for {
		s.turn()
		select {
		case <-p.exited:
			return
		case <-stopping:
			stopping = nil
			s.notify(daemon.SdNotifyStopping)
			if s.guard != nil {
				s.guard.unmark()
			}
			_ = p.cmd.Process.Signal(unix.SIGTERM)
			deadline = time.Now().Add(s.cfg.Stop)
		default:
		}
		if time.Now().After(deadline) {
			s.cfg.Logger.Error("service is silent or does not end, killing it", slog.Int("pid", p.pid))
			_ = p.cmd.Process.Kill()
			<-p.exited
			return
		}
		if deaf {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		m, err := receive(p.control, 50*time.Millisecond)
		switch {
		case errors.Is(err, unix.ETIMEDOUT):
			continue
		case errors.Is(err, errGone):
			deaf = true
			continue
		case err != nil:
			s.cfg.Logger.Warn("reading from the service", slog.Any("error", err))
			continue
		}
		if stopping != nil {
			deadline = time.Now().Add(s.cfg.Silence)
		}
		s.handle(p, m)
	}
}

func (s *Supervisor) handle(p *process, m message) {
	switch m.kind {
	case kindMode:
		if s.guard != nil {
			s.guard.setMode(m.mode())
		}
	case kindReady:
		var gap Gap
		if s.guard != nil {
			gap = s.guard.finish()
		}
		if err := send(p.control, message{kindGap, gap.Allowed, gap.Denied, gap.Writes}); err != nil {
			s.cfg.Logger.Warn("answering the service", slog.Any("error", err))
		}
		s.ready = true
		s.notify(daemon.SdNotifyReady)
		s.cfg.Logger.Info("service is ready", slog.Int("pid", p.pid), slog.Uint64("allowed", gap.Allowed), slog.Uint64("denied", gap.Denied))
	}
}
