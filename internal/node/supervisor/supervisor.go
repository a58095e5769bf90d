// Package supervisor is the parent process of the service. It owns the fanotify
// group, so that a crash of the service neither opens the machine beyond what
// policy allows nor leaves processes waiting: while no service decides, it
// answers waiting accesses by the fail mode, and starts the service again. It
// parses nothing but fixed-size headers and has no state on disk.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/driver/fanotify"
)

// Config of a Supervisor. Command is required.
type Config struct {
	Command []string        // the service; Command[0] is the path of the program
	Env     []string        // nil: this process's environment
	Group   *fanotify.Group // nil: the service runs without; it stays the caller's
	// Mode until the service sets its own.
	Mode Mode
	// Heartbeat is the interval of the service's heartbeats. Default 1 s.
	Heartbeat time.Duration
	// Silence without a heartbeat after which the service is killed. Default 10 s.
	Silence time.Duration
	// Startup bounds the time to the first heartbeat. Default 60 s.
	Startup time.Duration
	// Stop bounds the wait for the service to end by itself. Default 20 s.
	Stop time.Duration
	// Backoff is the first and MaxBackoff the longest pause before a restart;
	// a service that ran for a minute is restarted at once. Default 100 ms, 30 s.
	Backoff, MaxBackoff time.Duration
	// Files bounds the descriptors of the service and its children: the numbers
	// that are tried for accesses left behind by a crash. Default 65536.
	Files  uint64
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	set := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.Heartbeat, time.Second)
	set(&c.Silence, 10*time.Second)
	set(&c.Startup, time.Minute)
	set(&c.Stop, 20*time.Second)
	set(&c.Backoff, 100*time.Millisecond)
	set(&c.MaxBackoff, 30*time.Second)
	if c.Files == 0 {
		c.Files = 1 << 16
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Supervisor starts and guards one service.
type Supervisor struct {
	cfg   Config
	files uint64
	null  *os.File
	guard *guard       // nil without a group
	ready bool         // a service has been ready
	alive atomic.Int64 // unix nanoseconds of the main loop's last turn
}

// New prepares a supervisor. It lowers this process's limit of descriptors to
// Config.Files, for itself and its children. The caller closes it.
func New(cfg Config) (*Supervisor, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Command) == 0 {
		return nil, errors.New("creating the supervisor: no command")
	}
	if cfg.Group != nil && cfg.Group.File() == nil {
		return nil, errors.New("creating the supervisor: the group is itself inherited")
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return nil, fmt.Errorf("creating the supervisor: %w", err)
	}
	s := &Supervisor{cfg: cfg, files: min(cfg.Files, lim.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: s.files, Max: s.files}); err != nil {
		cfg.Logger.Warn("limit of descriptors not set", slog.Any("error", err))
		s.files = min(lim.Max, 1<<20)
	}
	// Opened now: later an open by this process could wait for itself.
	var err error
	if s.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("creating the supervisor: %w", err)
	}
	if cfg.Group != nil {
		if s.guard, err = newGuard(cfg.Group, cfg.Mode); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// attempts is how often a service that was never ready is started: it ends for
// a reason that will not go away, such as a missing program.
const attempts = 5

// Run keeps the service running until ctx ends; then it removes all marks, asks
// the service to end (SIGTERM), waits a bounded time and returns nil. It
// returns an error if the service cannot be started at all; once it has been
// ready it is started again for ever.
func (s *Supervisor) Run(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	go s.watchdog(done)
	pause := s.cfg.Backoff
	for restarts := 0; ; restarts++ {
		began := time.Now()
		s.takeOver(restarts > 0)
		p, err := s.start()
		if err != nil {
			s.cfg.Logger.Error("starting the service", slog.Any("error", err))
		} else {
			s.watch(ctx, p)
			err = fmt.Errorf("it ended with %s", p.status())
			s.cfg.Logger.Warn("service ended", slog.Int("pid", p.pid), slog.String("status", p.status()))
		}
		if ctx.Err() != nil {
			s.release()
			return nil
		}
		if !s.ready && restarts+1 >= attempts {
			s.release()
			return fmt.Errorf("the service was started %d times and was never ready, see the lines above: %w", attempts, err)
		}
		if time.Since(began) > time.Minute {
			pause = s.cfg.Backoff
		}
		s.takeOver(true)
		if !s.sleep(ctx, pause) {
			s.release()
			return nil
		}
		pause = min(2*pause, s.cfg.MaxBackoff)
	}
}

// takeOver makes the supervisor the reader of the group. after tells that a
// service was there, which may have left accesses unanswered.
func (s *Supervisor) takeOver(after bool) {
	if s.guard == nil || s.guard.running() {
		return
	}
	if after {
		n := s.guard.abandoned(s.files)
		s.cfg.Logger.Warn("supervisor answers file accesses", slog.Any("left_behind", n))
	}
	s.guard.begin()
}

// release ends the protection: nothing new is reported, and nobody waits.
func (s *Supervisor) release() {
	if s.guard != nil {
		s.guard.unmark()
		s.guard.abandoned(s.files)
		s.guard.finish()
	}
}

func (s *Supervisor) sleep(ctx context.Context, d time.Duration) bool {
	for end := time.Now().Add(d); ; {
		s.turn()
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(left, 200*time.Millisecond)):
		}
	}
}

func (s *Supervisor) turn() { s.alive.Store(time.Now().UnixNano()) }

// watchdog tells systemd that the main loop turns (sd_notify(3)).
func (s *Supervisor) watchdog(done <-chan struct{}) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	t := time.NewTicker(interval / 3)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			if time.Since(time.Unix(0, s.alive.Load())) < interval {
				s.notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// notify tells systemd, if it listens; without systemd nothing happens.
func (s *Supervisor) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.cfg.Logger.Warn("notifying systemd", slog.Any("error", err))
	}
}

// Close stops answering and frees what New took. The group stays open.
func (s *Supervisor) Close() error {
	var errs []error
	if s.guard != nil {
		errs = append(errs, s.guard.close())
	}
	if s.null != nil {
		errs = append(errs, s.null.Close())
	}
	return errors.Join(errs...)
}
